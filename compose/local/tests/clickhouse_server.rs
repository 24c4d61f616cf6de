//! The ClickHouse front, asked by the real `clickhouse` crate and by plain HTTP.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clickhouse::{Client, Compression, Row};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// A running server; killed (-9) when dropped.
struct Server {
    child: Child,
    url: String,
}

fn library() -> PathBuf {
    match std::env::var_os("CHDB_LIBRARY") {
        Some(path) => path.into(),
        None => {
            let home = local::fetch::Part::ClickHouse.ensure();
            home.expect("the engine can be downloaded").join("libchdb.so")
        }
    }
}

impl Server {
    fn start(data: &Path) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_clickhouse-server-local"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--library")
            .arg(library())
            .args(["--user", "tillroll:secret", "--user", "analyst:look:readonly"])
            .args(["--readonly-max-memory-bytes", "50000000", "--readonly-max-execution-s", "2"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built with the test");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split([' ', ',']).find(|word| word.starts_with("http://"));
        let url = url.unwrap_or_else(|| panic!("the server did not start: {line}")).to_owned();
        Server { child, url }
    }

    fn client(&self) -> Client {
        self.client_of("tillroll", "secret").with_database("tillroll")
    }

    fn client_of(&self, user: &str, password: &str) -> Client {
        Client::default()
            .with_url(&self.url)
            .with_user(user)
            .with_password(password)
            .with_compression(Compression::None)
    }

    /// A server with the database and table used by most tests.
    async fn with_table(data: &Path) -> (Server, Client) {
        let server = Server::start(data);
        let root = server.client_of("tillroll", "secret");
        root.query("CREATE DATABASE IF NOT EXISTS tillroll").execute().await.unwrap();
        let client = server.client();
        client.query(TABLE).execute().await.unwrap();
        (server, client)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS events (id UInt64, name String, at Int64, \
    amount Nullable(Int64), tags Array(String), kind LowCardinality(String)) ENGINE = MergeTree \
    ORDER BY id SETTINGS non_replicated_deduplication_window = 100";

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Event {
    id: u64,
    name: String,
    at: i64,
    amount: Option<i64>,
    tags: Vec<String>,
    kind: String,
}

fn event(id: u64) -> Event {
    Event {
        id,
        name: format!("line {id}\n\nafter; an 'end' \\ \0 {}", "é".repeat((id % 7) as usize)),
        at: 1_700_000_000_000 + id as i64,
        amount: (!id.is_multiple_of(3)).then_some(id as i64 * -100),
        tags: vec!["\n\n".to_owned(); (id % 3) as usize],
        kind: ["received", "reserved", "paid"][(id % 3) as usize].to_owned(),
    }
}

async fn insert(client: &Client, ids: std::ops::Range<u64>) -> clickhouse::error::Result<()> {
    let mut insert = client.insert::<Event>("events").await?;
    for id in ids {
        insert.write(&event(id)).await?;
    }
    insert.end().await
}

async fn count(client: &Client) -> u64 {
    client.query("SELECT count() FROM events").fetch_one().await.unwrap()
}

#[tokio::test]
async fn a_hundred_thousand_typed_rows_come_back_as_they_went() {
    let folder = TempDir::new().unwrap();
    let (_server, client) = Server::with_table(folder.path()).await;
    insert(&client, 0..100_000).await.unwrap();
    let query = client.query("SELECT ?fields FROM events ORDER BY id");
    let mut cursor = query.fetch::<Event>().unwrap();
    let mut next = 0;
    while let Some(row) = cursor.next().await.unwrap() {
        assert_eq!(row, event(next));
        next += 1;
    }
    assert_eq!(next, 100_000);
    // A client that would take compressed answers gets them plain; parameters travel in a form.
    let lz4 = client.clone().with_compression(Compression::Lz4);
    let query = lz4.query("SELECT name FROM events WHERE id = {id:UInt64} AND {text:String} != ''");
    let query = query.param("id", 99_999).param("text", "it's \n\n here");
    assert_eq!(query.fetch_one::<String>().await.unwrap(), event(99_999).name);
    // Without names and types in front, too.
    let plain = client.clone().with_validation(false);
    insert(&plain, 100_000..100_010).await.unwrap();
    let query = plain.query("SELECT ?fields FROM events WHERE id >= ? ORDER BY id").bind(100_000);
    let rows = query.fetch_all::<Event>().await.unwrap();
    assert_eq!(rows, (100_000..100_010).map(event).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_insert_with_the_same_token_counts_once() {
    let folder = TempDir::new().unwrap();
    let (mut server, client) = Server::with_table(folder.path()).await;
    let block = |client: &Client, token: &str| {
        client.clone().with_setting("insert_deduplication_token", token.to_owned())
    };
    for _ in 0..3 {
        insert(&block(&client, "events:0:0-999"), 0..1000).await.unwrap();
    }
    assert_eq!(count(&client).await, 1000);
    // The same rows under another token are other rows.
    insert(&block(&client, "events:0:1000-1999"), 0..1000).await.unwrap();
    assert_eq!(count(&client).await, 2000);
    // An insert that was given up leaves no trace: not its rows, and not its token.
    let with_token = block(&client, "events:0:2000-2999");
    let mut given_up = with_token.insert::<Event>("events").await.unwrap();
    for id in 0..20_000 {
        given_up.write(&event(id)).await.unwrap();
    }
    drop(given_up);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count(&client).await, 2000);
    insert(&with_token, 0..500).await.unwrap();
    assert_eq!(count(&client).await, 2500);
    // Tokens outlive the process.
    server.kill();
    let server = Server::start(folder.path());
    insert(&block(&server.client(), "events:0:0-999"), 0..1000).await.unwrap();
    assert_eq!(count(&server.client()).await, 2500);
}

#[tokio::test]
async fn errors_are_errors() {
    let folder = TempDir::new().unwrap();
    let (server, client) = Server::with_table(folder.path()).await;
    let failing = |sql: &'static str| {
        let client = client.clone();
        async move { client.query(sql).execute().await.unwrap_err().to_string() }
    };
    assert!(failing("SELECT * FROM nowhere").await.contains("Code: 60"));
    assert!(failing("SELEKT").await.contains("Code: "));
    assert!(failing("SELECT 1; DROP TABLE events").await.contains("Multi-statements"));
    assert!(failing("CREATE TABLE events (a Int8) ENGINE = Memory").await.contains("Code: 57"));
    assert!(failing("SELECT 1 INTO OUTFILE '/tmp/x'").await.contains("OUTFILE"));
    let unknown = client.clone().with_setting("no_such_setting", "1");
    let error = unknown.query("SELECT 1").execute().await.unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
    let limited = client.clone().with_setting("max_execution_time", "1");
    let endless =
        limited.query("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1");
    let started = Instant::now();
    let error = endless.fetch_one::<u64>().await.unwrap_err();
    assert!(error.to_string().contains("Code: 159"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    // In the middle of an answer.
    let late = client.query("SELECT throwIf(number = 500000, 'late') FROM numbers(1000000)");
    let error = late.fetch_all::<u8>().await.unwrap_err();
    assert!(error.to_string().contains("Code: 395"), "{error}");
    // Rows that don't fit.
    let http = reqwest::Client::new();
    let broken = http
        .post(format!(
            "{}/?database=tillroll&query=INSERT+INTO+events+FORMAT+RowBinary",
            server.url
        ))
        .header("X-ClickHouse-User", "tillroll")
        .header("X-ClickHouse-Key", "secret")
        .body("not rows");
    let answer = broken.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let code = answer.headers()["x-clickhouse-exception-code"].to_str().unwrap().to_owned();
    assert!(["32", "33"].contains(&code.as_str()), "{code}: not an unexpected end of data");
    let missing = client.insert::<Event>("nowhere").await;
    assert!(missing.is_err());
    assert_eq!(count(&client).await, 0);
    let compressed = client.clone().with_compression(Compression::Lz4);
    let error = insert(&compressed, 0..10).await.unwrap_err().to_string();
    assert!(error.contains("Compression::None"), "{error}");
}

#[tokio::test]
async fn users_are_checked_and_kept_within_their_limits() {
    let folder = TempDir::new().unwrap();
    let (server, client) = Server::with_table(folder.path()).await;
    insert(&client, 0..1000).await.unwrap();
    for (user, password) in [("tillroll", "wrong"), ("nobody", "secret"), ("default", "")] {
        let error = server.client_of(user, password).query("SELECT 1").execute().await;
        assert!(error.unwrap_err().to_string().contains("Code: 516"), "{user}");
    }
    let analyst = server.client_of("analyst", "look").with_database("tillroll");
    assert_eq!(count(&analyst).await, 1000);
    for sql in [
        "INSERT INTO events (id) SELECT 1",
        "INSERT INTO events (id) VALUES (1)",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "DROP TABLE events",
        "ALTER TABLE events DELETE WHERE 1",
        "SET max_memory_usage = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
        "KILL QUERY WHERE 1",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT file('/etc/hostname')",
        "SELECT * FROM (SELECT * FROM s3('http://127.0.0.1:1/bucket/a', 'CSV', 'a Int8'))",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8')",
    ] {
        let error = analyst.query(sql).execute().await.expect_err(sql).to_string();
        assert!(error.contains("Code: 164") || error.contains("Code: 497"), "{sql}: {error}");
    }
    assert!(insert(&analyst, 0..10).await.unwrap_err().to_string().contains("Code: 164"));
    assert_eq!(count(&client).await, 1000);
    let loose = analyst.clone().with_setting("readonly", "0").with_setting("max_memory_usage", "0");
    let much =
        "SELECT count() FROM (SELECT number, count() FROM numbers(10000000) GROUP BY number)";
    let error = loose.query(much).fetch_one::<u64>().await.unwrap_err();
    assert!(error.to_string().contains("Code: 241"), "{error}");
    let long = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1";
    let error = loose.query(long).fetch_one::<u64>().await.unwrap_err();
    assert!(error.to_string().contains("Code: 159"), "{error}");
}

#[tokio::test]
async fn parallel_queries_do_not_wait_for_each_other() {
    let folder = TempDir::new().unwrap();
    let (_server, client) = Server::with_table(folder.path()).await;
    let started = Instant::now();
    let queries = (0..8_u64).map(|i| {
        let client = client.clone().with_setting("log_comment", i.to_string());
        async move {
            let query = client.query("SELECT toUInt64(getSetting('log_comment')) + sleep(1)");
            assert_eq!(query.fetch_one::<u64>().await.unwrap(), i);
            insert(&client, i * 1000..(i + 1) * 1000).await.unwrap();
        }
    });
    futures::future::join_all(queries).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(count(&client).await, 8000);
}

#[tokio::test]
async fn plain_http_is_served_as_clickhouse_does() {
    let folder = TempDir::new().unwrap();
    let (server, _client) = Server::with_table(folder.path()).await;
    let http = reqwest::Client::new();
    let get = async |path: &str| {
        let request =
            http.get(format!("{}{path}", server.url)).basic_auth("tillroll", Some("secret"));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let post = async |path: &str, body: &str| {
        let request = http.post(format!("{}{path}", server.url)).body(body.to_owned());
        let answer = request.basic_auth("tillroll", Some("secret")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/ping").await, (200, "Ok.\n".to_owned()));
    assert_eq!(get("/?query=SELECT+1").await, (200, "1\n".to_owned()));
    assert_eq!(get("/?query=DROP+TABLE+tillroll.events").await.0, 500);
    assert_eq!(post("/", "SELECT 1 AS a FORMAT JSONEachRow").await.1, "{\"a\":1}\n");
    assert_eq!(post("/?query=SELECT+1,", "2").await.1, "1\t2\n");
    let named = post("/?param_x=41", "SELECT {x:UInt8} + 1").await;
    assert_eq!(named, (200, "42\n".to_owned()));
    for (path, body) in [
        ("/", "INSERT INTO tillroll.events (id, name) VALUES (1, 'a\n\nb;c'), (2, 'd')"),
        (
            "/",
            "INSERT INTO tillroll.events (id, name) FORMAT JSONEachRow\n{\"id\":3,\"name\":\"e\"}\n",
        ),
        ("/?query=INSERT+INTO+tillroll.events+(id,name)+FORMAT+CSV", "4,\"f\n\ng\"\n5,h\n"),
        ("/", "INSERT INTO tillroll.events (id, name) SELECT 6, 'i'"),
    ] {
        assert_eq!(post(path, body).await, (200, String::new()), "{body}");
    }
    let (_, all) =
        get("/?query=SELECT+groupArray(name)+FROM+(SELECT+*+FROM+tillroll.events+ORDER+BY+id)")
            .await;
    assert_eq!(all, "['a\\n\\nb;c','d','e','f\\n\\ng','h','i']\n");
    // Formats with a beginning and an end are whole however many chunks they take.
    let (_, json) = get("/?query=SELECT+number+FROM+numbers(200000)+FORMAT+JSON").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["rows"], 200_000);
    let (_, csv) = get("/?query=SELECT+number+FROM+numbers(200000)+FORMAT+CSVWithNames").await;
    assert_eq!(csv.lines().count(), 200_001);
    assert_eq!(get("/?query=SELECT+1&compress=1").await.0, 501);
    assert_eq!(get("/?query=SELECT+1&database=nowhere").await.0, 404);
    assert_eq!(get("/nowhere").await.0, 404);
    let ping = http.get(format!("{}/ping", server.url)).send().await.unwrap();
    assert_eq!(ping.status(), 200);
    assert_eq!(
        http.get(format!("{}/?query=SELECT+1", server.url)).send().await.unwrap().status(),
        403
    );
}

#[tokio::test]
async fn what_was_answered_survives_kill_9_and_blocks_are_whole() {
    let folder = TempDir::new().unwrap();
    let (mut server, client) = Server::with_table(folder.path()).await;
    let mut committed = 0;
    for round in 0..3 {
        let client = if round == 0 { client.clone() } else { server.client() };
        let (done, mut answered) = tokio::sync::mpsc::unbounded_channel();
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let (client, done) = (client.clone(), done.clone());
                tokio::spawn(async move {
                    for block in 0.. {
                        let first = ((round * 4 + writer) * 1000 + block) * 5000;
                        if insert(&client, first..first + 5000).await.is_err() {
                            return Some(first);
                        }
                        let _ = done.send(());
                    }
                    None
                })
            })
            .collect();
        drop(done);
        for _ in 0..12 {
            answered.recv().await.expect("inserts go on");
            committed += 1;
        }
        server.kill();
        let mut cut_off = Vec::new();
        for writer in writers {
            cut_off.extend(writer.await.unwrap());
        }
        assert!(!cut_off.is_empty(), "no insert was cut off");
        while answered.recv().await.is_some() {
            committed += 1;
        }
        server = Server::start(folder.path());
        let found = count(&server.client()).await;
        assert_eq!(found % 5000, 0, "a block was cut");
        assert!(found >= committed * 5000, "{found} rows of {committed} blocks");
        // Repeated without a token: one that was noted before its block was stored would swallow it.
        for first in &cut_off {
            insert(&server.client(), *first..first + 5000).await.unwrap();
            committed += 1;
        }
        let distinct = "SELECT uniqExact(id) FROM events";
        let distinct: u64 = server.client().query(distinct).fetch_one().await.unwrap();
        assert_eq!(distinct, committed * 5000);
    }
}
