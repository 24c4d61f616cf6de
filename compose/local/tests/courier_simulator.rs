//! The courier simulator's contract, spoken over real HTTP to its real binary.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Response};
use serde_json::{Value, json};
use uuid::Uuid;

/// A running simulator; ends with the test.
struct Simulator {
    child: Child,
    url: String,
    http: Client,
}

impl Simulator {
    fn start(flags: &[&str]) -> Simulator {
        let mut child = Command::new(env!("CARGO_BIN_EXE_courier-simulator"))
            .args(["--listen", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built with the test");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect("its first line").to_owned();
        Simulator { child, url, http: Client::new() }
    }

    async fn book(&self, courier: &str, order: Uuid, attempt: u32) -> Response {
        self.booking(courier, order, attempt).send().await.unwrap()
    }

    fn booking(&self, courier: &str, order: Uuid, attempt: u32) -> reqwest::RequestBuilder {
        let reference = format!("{order}-{attempt}");
        let body = json!({
            "reference": reference,
            "merchant": "acme",
            "order_id": order,
            "lane": "GB>FR",
            "destination": {
                "name": "A. Martin", "street": "1 rue de la Paix", "city": "Paris",
                "postcode": "75002", "country": "FR",
            },
            "weight_grams": null,
        });
        self.http
            .post(format!("{}/{courier}/consignments", self.url))
            .header("Idempotency-Key", reference)
            .json(&body)
    }

    async fn void(&self, courier: &str, order: Uuid, attempt: u32) -> Response {
        let url = format!("{}/{courier}/consignments/{order}-{attempt}", self.url);
        self.http.delete(url).send().await.unwrap()
    }

    async fn find(&self, courier: &str, order: Uuid, attempt: u32) -> Response {
        let url = format!("{}/{courier}/consignments/{order}-{attempt}", self.url);
        self.http.get(url).send().await.unwrap()
    }

    async fn patch(&self, courier: &str, change: Value) -> Response {
        let url = format!("{}/settings/{courier}", self.url);
        self.http.patch(url).json(&change).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn json_of(response: Response, status: u16) -> Value {
    let got = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

const QUICK: &[&str] = &["--latency-ms", "0-2", "--seed", "7"];

#[tokio::test]
async fn a_booking_is_idempotent_and_a_void_is_final() {
    let simulator = Simulator::start(QUICK);
    let order = Uuid::new_v4();
    let first = json_of(simulator.book("budget", order, 1).await, 201).await;
    assert!(first["consignment_id"].as_str().unwrap().starts_with("budget-"));
    assert_eq!((&first["price_minor"], &first["currency"]), (&json!(325), &json!("GBP")));
    assert!(!first["tracking_number"].as_str().unwrap().is_empty());
    assert!(first["promised_at"].as_i64().unwrap() > 1_700_000_000_000);
    // The price of what is booked does not move.
    json_of(simulator.patch("budget", json!({"price_minor": 999})).await, 200).await;
    assert_eq!(json_of(simulator.book("budget", order, 1).await, 200).await, first);

    let found = json_of(simulator.find("budget", order, 1).await, 200).await;
    assert_eq!((&found["status"], &found["price_minor"]), (&json!("booked"), &json!(325)));
    json_of(simulator.find("budget", order, 2).await, 404).await;

    for _ in 0..2 {
        let voided = json_of(simulator.void("budget", order, 1).await, 200).await;
        assert_eq!(voided, json!({"voided": true}));
    }
    let found = json_of(simulator.find("budget", order, 1).await, 200).await;
    assert_eq!(found["status"], "voided");
    json_of(simulator.book("budget", order, 1).await, 409).await;
    // A void that overtakes its booking.
    json_of(simulator.void("budget", order, 3).await, 200).await;
    json_of(simulator.book("budget", order, 3).await, 409).await;

    let budget = simulator.get("/ledger").await["budget"].clone();
    assert_eq!(
        (&budget["booked"], &budget["voided"], &budget["live"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!((&budget["voided_unknown"], &budget["refused_after_void"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn a_call_given_up_by_its_client_still_books_once() {
    let simulator = Simulator::start(&["--latency-ms", "400-400"]);
    let order = Uuid::new_v4();
    let given_up = simulator.booking("swift", order, 1).timeout(Duration::from_millis(50)).send();
    assert!(given_up.await.unwrap_err().is_timeout());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let found = json_of(simulator.find("swift", order, 1).await, 200).await;
    assert_eq!(found["status"], "booked");
    let again = json_of(simulator.book("swift", order, 1).await, 200).await;
    assert_eq!(again["consignment_id"], found["consignment_id"]);
    assert_eq!(simulator.get("/ledger").await["swift"]["booked"], 1);
}

#[tokio::test]
async fn ways_to_fail_are_set_while_it_runs() {
    let simulator = Simulator::start(QUICK);
    let order = Uuid::new_v4();
    for (change, status) in [
        (json!({"failure_rate": 1.0}), 500),
        (json!({"failure_rate": 0.0, "mode": "error"}), 503),
        (json!({"mode": "normal", "refusal_rate": 1.0}), 422),
        (json!({"refusal_rate": 0.0, "paused": true}), 503),
        (json!({"paused": false, "rate_limit_per_s": 0}), 429),
        (json!({"rate_limit_per_s": null}), 201),
    ] {
        json_of(simulator.patch("royal", change.clone()).await, 200).await;
        let answer = simulator.book("royal", order, 1).await;
        let retry_after = answer.headers().contains_key("retry-after");
        let body = json_of(answer, status).await;
        assert!(status != 429 || retry_after);
        assert!(status != 422 || body["error"] == "refused", "{body}");
    }
    json_of(simulator.patch("royal", json!({"mode": "hang"})).await, 200).await;
    let hung = simulator.booking("royal", order, 2).timeout(Duration::from_millis(300)).send();
    assert!(hung.await.unwrap_err().is_timeout());
    // The others don't notice.
    json_of(simulator.book("parcelo", order, 1).await, 201).await;

    let flap = json!({"mode": "flap", "flap_ms": 100});
    json_of(simulator.patch("royal", flap).await, 200).await;
    let mut seen = std::collections::BTreeSet::new();
    let until = Instant::now() + Duration::from_secs(10);
    while seen.len() < 2 && Instant::now() < until {
        seen.insert(simulator.find("royal", order, 1).await.status().as_u16());
    }
    assert_eq!(seen, [200, 503].into());

    json_of(
        simulator
            .patch("royal", json!({"mode": "slow", "latency_ms": {"min": 10, "max": 10}}))
            .await,
        200,
    )
    .await;
    let started = Instant::now();
    json_of(simulator.find("royal", order, 1).await, 200).await;
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn rates_are_kept_and_seeded() {
    let outcomes = |seed: &'static str| async move {
        let simulator = Simulator::start(&["--latency-ms", "0", "--seed", seed]);
        let change = json!({"failure_rate": 0.2, "refusal_rate": 0.1});
        json_of(simulator.patch("swift", change).await, 200).await;
        let mut outcomes = Vec::new();
        for order in 0..500 {
            let answer = simulator.book("swift", Uuid::from_u128(order), 1).await;
            outcomes.push(answer.status().as_u16());
        }
        outcomes
    };
    let first = outcomes("42").await;
    let share = |status| first.iter().filter(|s| **s == status).count();
    assert!((60..140).contains(&share(500)), "{}", share(500));
    assert!((15..70).contains(&share(422)), "{}", share(422));
    assert_eq!(first, outcomes("42").await);
    assert_ne!(first, outcomes("43").await);
}

#[tokio::test]
async fn half_of_the_unanswered_calls_are_carried_out() {
    let simulator = Simulator::start(QUICK);
    json_of(simulator.patch("swift", json!({"timeout_rate": 1.0})).await, 200).await;
    let calls = (0..100).map(|order| {
        simulator.booking("swift", Uuid::from_u128(order), 1).timeout(Duration::from_secs(1)).send()
    });
    for answer in futures::future::join_all(calls).await {
        assert!(answer.unwrap_err().is_timeout());
    }
    let swift = simulator.get("/ledger").await["swift"].clone();
    assert_eq!(swift["unanswered"], 100);
    assert!((25..75).contains(&swift["booked"].as_u64().unwrap()), "{swift}");
}

#[tokio::test]
async fn the_audit_finds_orders_with_two_live_consignments() {
    let simulator = Simulator::start(QUICK);
    let (twice, once) = (Uuid::new_v4(), Uuid::new_v4());
    simulator.book("swift", twice, 1).await;
    simulator.book("budget", twice, 2).await;
    simulator.book("swift", once, 1).await;
    simulator.book("budget", once, 2).await;
    simulator.void("swift", once, 1).await;
    let found = simulator.get("/ledger/duplicates").await;
    assert_eq!(found["count"], 1);
    assert_eq!(found["orders"][0]["order_id"], twice.to_string());
    assert_eq!(found["orders"][0]["consignments"].as_array().unwrap().len(), 2);
    simulator.void("budget", twice, 2).await;
    assert_eq!(simulator.get("/ledger/duplicates").await["count"], 0);
}

#[tokio::test]
async fn what_breaks_the_contract_is_refused() {
    let simulator = Simulator::start(QUICK);
    let order = Uuid::new_v4();
    let http = &simulator.http;
    let url = format!("{}/swift/consignments", simulator.url);
    let keyless = http.post(&url).json(&json!({"reference": format!("{order}-1")}));
    json_of(keyless.send().await.unwrap(), 400).await;
    let other_key = simulator.booking("swift", order, 1).header("Idempotency-Key", "x");
    // Two keys, of which the first counts: still the reference, so this one books.
    json_of(other_key.send().await.unwrap(), 201).await;
    let broken = http.post(&url).body("{").header("Idempotency-Key", "x");
    json_of(broken.send().await.unwrap(), 400).await;
    json_of(simulator.book("nobody", order, 1).await, 404).await;
    json_of(simulator.patch("swift", json!({"failure_rate": 7})).await, 400).await;
    json_of(simulator.patch("nobody", json!({})).await, 404).await;
    let large = http.post(&url).body("x".repeat(100_000));
    json_of(large.send().await.unwrap(), 400).await;

    let made = http.put(format!("{}/settings/night-owl", simulator.url));
    json_of(made.json(&json!({"price_minor": 100})).send().await.unwrap(), 200).await;
    json_of(simulator.book("night-owl", order, 1).await, 201).await;
    assert_eq!(simulator.get("/settings").await.as_object().unwrap().len(), 5);
    assert_eq!(simulator.get("/settings/night-owl").await["latency_ms"]["min"], 50);
    assert_eq!(simulator.get("/livez").await["live"], true);
}
