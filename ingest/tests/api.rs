//! The whole API against real Kafka, registry and PostgreSQL, through two processes.

#[path = "api/stock.rs"]
mod stock;
mod support;

use anyhow::Result;
use events::Record;
use futures::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};

use support::{Answer, World, answer, database, eventually, order};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_keeps_its_contract() -> Result<()> {
    let world = World::start(|stack| stack).await?;
    refusals(&world).await?;
    acceptance(&world).await?;
    parallel_clicks(&world).await?;
    conflicts(&world).await?;
    stock::receipts(&world).await?;
    states(&world).await?;
    changes(&world).await?;
    stock::requests(&world).await?;
    revocation(&world).await?;
    shutdown(&world).await
}

/// Every refusal of a request that is the client's fault.
async fn refusals(world: &World) -> Result<()> {
    let good = order().to_string();
    let with = |change: fn(&mut Value)| {
        let mut body = order();
        change(&mut body);
        body.to_string()
    };
    let big = with(|body| body["attributes"]["note"] = "x".repeat(300_000).into());
    let (json_type, key) = (("content-type", "application/json"), ("idempotency-key", "refused"));
    let all = [json_type, key];
    let orders = "/v1/orders";
    let receipts = "/v1/stock/receipts";
    let post = |path, headers: &[(&'static str, &'static str)], body: &str, status, code| {
        (Method::POST, path, headers.to_vec(), body.to_owned(), status, code)
    };
    let call = |method, path, status, code| (method, path, vec![], String::new(), status, code);
    let table = vec![
        post(orders, &[json_type], &good, 400, "missing_idempotency_key"),
        post(
            orders,
            &[json_type, ("idempotency-key", "\"")],
            &good,
            400,
            "invalid_idempotency_key",
        ),
        post(orders, &[json_type, ("idempotency-key", "")], &good, 400, "invalid_idempotency_key"),
        post(
            orders,
            &[json_type, ("idempotency-key", "a b")],
            &good,
            400,
            "invalid_idempotency_key",
        ),
        post(orders, &all, &good[1..], 400, "invalid_json"),
        post(orders, &all, "", 400, "invalid_json"),
        post(orders, &all, &big, 413, "body_too_large"),
        post(orders, &[key], &good, 415, "unsupported_media_type"),
        post(orders, &[key, ("content-type", "text/xml")], &good, 415, "unsupported_media_type"),
        post(orders, &all, &with(|b| b["coupon"] = 1.into()), 422, "validation_failed"),
        post(orders, &all, &with(|b| b["lines"] = json!([])), 422, "validation_failed"),
        post(
            orders,
            &all,
            &with(|b| b["lines"][0]["quantity"] = json!(-1)),
            422,
            "validation_failed",
        ),
        post(receipts, &[json_type], "{}", 400, "missing_idempotency_key"),
        post(receipts, &all, r#"{"lines": []}"#, 422, "validation_failed"),
        post(
            receipts,
            &all,
            r#"{"warehouse": "", "lines": [{"sku": "A", "quantity": 1}]}"#,
            422,
            "validation_failed",
        ),
        post("/v1/stock/adjustments", &all, r#"{"lines": []}"#, 422, "validation_failed"),
        post("/v1/stock/flash-sales", &all, "{}", 422, "validation_failed"),
        post("/v1/warehouses", &all, "{}", 422, "validation_failed"),
        call(Method::GET, "/v1/stock/counts", 405, "method_not_allowed"),
        post("/v1/stock/A", &all, "", 405, "method_not_allowed"),
        call(Method::PUT, orders, 405, "method_not_allowed"),
        call(Method::GET, "/v1/orders?limit=x&colour=red", 422, "validation_failed"),
        call(Method::POST, "/v1/orders/1/events", 405, "method_not_allowed"),
        call(Method::GET, "/v1/orders/no-uuid/events", 404, "order_not_found"),
        call(Method::GET, "/v1/orders/1/cancel", 405, "method_not_allowed"),
        post("/v1/orders/no-uuid/cancel", &all, "{}", 404, "order_not_found"),
        call(Method::GET, receipts, 405, "method_not_allowed"),
        call(Method::DELETE, "/v1/orders/1", 405, "method_not_allowed"),
        call(Method::GET, "/v2/orders", 404, "not_found"),
        call(Method::GET, "/", 404, "not_found"),
        call(Method::GET, "/v1/orders/no-uuid", 404, "order_not_found"),
        call(Method::GET, "/v1/stock/never%20received", 404, "stock_not_found"),
        call(Method::GET, "/v1/stock/a%2Fb", 404, "stock_not_found"),
    ];
    for (method, path, headers, body, status, code) in table {
        let mut request = world.http.request(method.clone(), world.url(0, path));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let refused = answer(request.bearer_auth(&world.shop).body(body)).await?;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{method} {path}: {refused:?}"
        );
        problem(&refused, path.split('?').next().unwrap_or(path));
    }
    for token in ["", "tr_unknown", &world.shop[1..]] {
        let request = world.http.post(world.url(0, orders)).bearer_auth(token).body(good.clone());
        let refused = answer(request).await?;
        assert_eq!((refused.status, refused.code()), (401, "unauthorized"));
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
        problem(&refused, orders);
    }
    assert!(world.records("orders")?.is_empty(), "a refused request leaves no record");
    assert!(world.records("stock")?.is_empty(), "a refused request leaves no record");
    Ok(())
}

fn problem(refused: &Answer, path: &str) {
    assert_eq!(refused.headers["content-type"], "application/problem+json", "{refused:?}");
    assert_eq!(refused.body["status"], refused.status);
    assert_eq!(refused.body["instance"], path);
    assert_eq!(refused.body["type"], format!("/problems/{}", refused.code()));
    if refused.code() == "validation_failed" {
        assert!(refused.body["errors"][0]["pointer"].is_string(), "{refused:?}");
    }
}

async fn acceptance(world: &World) -> Result<()> {
    let accepted = world.order(0, "first").await?;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let id = accepted.order_id();
    let path = format!("/v1/orders/{id}");
    assert_eq!(accepted.headers["location"], path);
    assert_eq!(accepted.body, json!({"order_id": id, "status": "received", "status_url": path}));
    assert!(accepted.headers["idempotency-expires"].ends_with(" GMT"), "{accepted:?}");
    assert!(!accepted.replayed());
    // Read your write, at once in the process that took it and soon in the other.
    let shown = world.get(0, &world.shop, &path).await?;
    assert_eq!((shown.status, &shown.body["status"]), (200, &json!("received")), "{shown:?}");
    eventually("the other process knows the order", async || {
        let shown = world.get(1, &world.shop, &path).await?;
        Ok(shown.status == 200 && shown.body["status"] == "received")
    })
    .await?;
    for (process, secret, path) in [
        (0, &world.other, path.as_str()),
        (1, &world.other, path.as_str()),
        (0, &world.shop, "/v1/orders/00000000-0000-4000-8000-000000000000"),
    ] {
        let hidden = world.get(process, secret, path).await?;
        assert_eq!((hidden.status, hidden.code()), (404, "order_not_found"), "{path}");
    }
    let records = world.records("orders")?;
    let [Record::OrderPlaced(record)] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(record.order_id.to_string(), id);
    assert_eq!((record.total_minor, record.lines.len()), (6 * 255 + 6 * 339, 2));
    assert_eq!(record.idempotency_key, "first");
    Ok(())
}

async fn parallel_clicks(world: &World) -> Result<()> {
    let clicks = 20;
    let click = |n: usize| {
        // Every other click quotes the key, and they are spread over both processes.
        let key = if n % 4 < 2 { "parallel" } else { "\"parallel\"" };
        world.order(n % 2, key)
    };
    let answers = try_join_all((0..clicks).map(click)).await?;
    let id = answers[0].order_id();
    for answer in &answers {
        assert_eq!((answer.status, answer.order_id()), (202, id.clone()), "{answer:?}");
    }
    let own = answers.iter().filter(|answer| !answer.replayed()).count();
    let records = world.orders()?[&id];
    assert!((1..=2).contains(&records), "{records}: at most one record in each process");
    assert_eq!(own, records, "every record is one click's own");
    // Later clicks are absorbed by both processes.
    let replays = "tillroll_orders_replayed_total";
    eventually("both processes know the order", async || {
        let before = world.orders()?[&id];
        let answers = [world.order(0, "parallel").await?, world.order(1, "parallel").await?];
        let absorbed = answers.iter().all(|answer| answer.status == 202 && answer.replayed());
        Ok(absorbed && world.orders()?[&id] == before)
    })
    .await?;
    let before = world.metric(1, replays).await?;
    let again = world.order(1, "parallel").await?;
    assert_eq!(again.headers["idempotency-expires"], answers[0].headers["idempotency-expires"]);
    assert_eq!(world.metric(1, replays).await? - before, 1.0);
    // The same body, written another way, is the same order.
    let mut reordered = order();
    reordered["ordered_at"] = "2010-12-01T10:26:00+02:00".into();
    let again = world.post(0, "/v1/orders", "parallel", &reordered).await?;
    assert_eq!((again.status, again.replayed()), (202, true), "{again:?}");
    // Another merchant's key of the same name is another order.
    let request = world.http.post(world.url(0, "/v1/orders")).bearer_auth(&world.other);
    let foreign = answer(request.header("idempotency-key", "parallel").json(&order())).await?;
    assert_eq!((foreign.status, foreign.replayed()), (202, false));
    assert_ne!(foreign.order_id(), id);
    Ok(())
}

async fn conflicts(world: &World) -> Result<()> {
    let mut changed = order();
    changed["lines"][0]["quantity"] = 7.into();
    for process in [0, 1] {
        let refused = world.post(process, "/v1/orders", "parallel", &changed).await?;
        let told = (refused.status, refused.code());
        assert_eq!(told, (422, "idempotency_key_conflict"), "{process}");
    }
    // Both at once: one is the order, the other a conflict; never two orders in one process.
    let both = try_join_all([
        world.post(0, "/v1/orders", "contested", &order()),
        world.post(0, "/v1/orders", "contested", &changed),
    ])
    .await?;
    let mut statuses: Vec<u16> = both.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 422], "{both:?}");
    Ok(())
}

/// What the sinks wrote is what is shown.
async fn states(world: &World) -> Result<()> {
    let accepted = world.order(0, "shown").await?;
    let id = accepted.order_id();
    let key = format!("'{id}', '2026-11-27T09:00:00Z'");
    database(&world.stack)
        .await?
        .batch_execute(&format!(
            "INSERT INTO orders VALUES ({key}, 'shop', 'routed', '', 3, 1, 1, 'GBP', 3564, 1, NULL,
                '2010-12-01T08:26:00Z', '2026-11-27T09:00:02Z', '{{\"city\": \"Leeds\"}}', '{{}}');
             INSERT INTO order_lines VALUES ({key}, 1, '85123A', 6, 255);
             INSERT INTO order_events VALUES
                ({key}, 1, 'shop', 'received', '', '2026-11-27T09:00:00Z', 1, 1, NULL),
                ({key}, 2, 'shop', 'reserved', '', '2026-11-27T09:00:01Z', 1, 1, NULL),
                ({key}, 3, 'shop', 'routed', '', '2026-11-27T09:00:02Z', 1, 1, NULL);
             INSERT INTO consignments VALUES ({key}, 3, 'swift', 'swift-1', 'T1', 450, 'GBP',
                '2026-11-29T09:00:00Z', 1, 1, 1);
             INSERT INTO stock_levels (merchant, sku, warehouse, version, on_hand, reserved, allocated,
                changed_at, set_aside, missing) VALUES
                ('shop', 'a b', 'east', 1, 10, 2, 1, '2026-11-27T09:00:00Z', 1, 2),
                ('shop', 'a b', 'main', 1, 5, 5, 0, '2026-11-27T09:00:00Z', 0, 1),
                ('other', 'a b', 'main', 1, 99, 0, 0, '2026-11-27T09:00:00Z', 0, 0);"
        ))
        .await?;
    let path = format!("/v1/orders/{id}");
    let shown = world.get(1, &world.shop, &path).await?;
    assert_eq!(shown.status, 200);
    let body = &shown.body;
    assert_eq!((&body["status"], &body["version"]), (&json!("routed"), &json!(3)), "{body}");
    assert_eq!((&body["reason"], &body["customer_id"]), (&Value::Null, &Value::Null));
    assert_eq!((&body["total_minor"], &body["currency"]), (&json!(3564), &json!("GBP")));
    assert_eq!(body["accepted_at"], "2026-11-27T09:00:00.000Z");
    assert_eq!(body["lines"][0]["sku"], "85123A");
    assert_eq!(body["consignment"]["courier"], "swift");
    assert_eq!(body["events"].as_array().map(Vec::len), Some(3));
    assert_eq!(body["events"][2]["status"], "routed");
    let hidden = world.get(1, &world.other, &path).await?;
    assert_eq!(hidden.status, 404, "{hidden:?}");

    let stock = world.get(0, &world.shop, "/v1/stock/a%20b").await?;
    // More may be promised than a count has found: that is nothing available, not less.
    let sums = ["on_hand", "reserved", "allocated", "available", "missing"];
    assert_eq!(sums.map(|sum| stock.body[sum].as_i64()), [15, 7, 1, 4, 3].map(Some), "{stock:?}");
    assert_eq!(stock.body["warehouses"][0]["available"], 4);
    Ok(())
}

/// Cancels and confirmations: recorded once per key, of one's own orders, while there is time.
async fn changes(world: &World) -> Result<()> {
    let id = world.order(0, "to-be-cancelled").await?.order_id();
    let path = format!("/v1/orders/{id}/cancel");
    let reason = json!({"reason": "changed my mind"});
    let accepted = world.post(0, &path, "c1", &reason).await?;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(
        accepted.body,
        json!({"order_id": id, "status": "cancel_requested", "status_url": format!("/v1/orders/{id}")})
    );
    let again = world.post(0, &path, "c1", &reason).await?;
    assert_eq!((again.status, again.replayed()), (202, true), "{again:?}");
    let other = world.post(0, &path, "c1", &json!({})).await?;
    assert_eq!((other.status, other.code()), (422, "idempotency_key_conflict"));
    let confirmed = world.post(0, &format!("/v1/orders/{id}/confirm"), "c1", &json!({})).await?;
    assert_eq!((confirmed.status, &confirmed.body["status"]), (202, &json!("confirm_requested")));
    let records = world.records("order-outcomes")?;
    let [Record::CancelRequested(cancel), Record::OrderConfirmed(confirm)] = records.as_slice()
    else {
        panic!("{records:?}")
    };
    assert_eq!(
        (cancel.order_id.to_string(), cancel.reason.as_str()),
        (id.clone(), "changed my mind")
    );
    assert_eq!((confirm.order_id.to_string(), confirm.merchant.as_str()), (id.clone(), "shop"));
    let foreign = world.http.post(world.url(0, &path)).bearer_auth(&world.other);
    let foreign = answer(foreign.header("idempotency-key", "c2").json(&json!({}))).await?;
    assert_eq!((foreign.status, foreign.code()), (404, "order_not_found"));
    let unknown = "/v1/orders/00000000-0000-4000-8000-000000000000/cancel";
    let unknown = world.post(0, unknown, "c3", &json!({})).await?;
    assert_eq!((unknown.status, unknown.code()), (404, "order_not_found"));
    // What the sinks have seen end is not asked to change.
    for (status, expected) in [("shipped", 409), ("cancelled", 202), ("routed", 202)] {
        let id = world.order(0, status).await?.order_id();
        database(&world.stack)
            .await?
            .batch_execute(&format!(
                "INSERT INTO orders VALUES ('{id}', '2026-11-27T09:00:00Z', 'shop', '{status}', '', 3, 1,
                 1, 'GBP', 3564, 1, NULL, '2010-12-01T08:26:00Z', '2026-11-27T09:00:02Z', NULL, NULL);"
            ))
            .await?;
        let path = format!("/v1/orders/{id}/cancel");
        let answer = world.post(0, &path, status, &json!({})).await?;
        assert_eq!(answer.status, expected, "{status}: {answer:?}");
    }
    assert_eq!(world.records("order-outcomes")?.len(), 4);
    Ok(())
}

/// A revoked key is refused within seconds, without a restart.
async fn revocation(world: &World) -> Result<()> {
    let file = world.stack.keys_file();
    let entries = wire::keys::list(&file)?;
    let other = entries.iter().find(|entry| entry.merchant.as_str() == "other").expect("issued");
    wire::keys::revoke(&file, other.id())?;
    eventually("the revoked key is refused", async || {
        Ok(world.get(0, &world.other, "/v1/stock/A").await?.status == 401)
    })
    .await?;
    assert_eq!(world.get(0, &world.shop, "/v1/stock/A").await?.status, 404);
    Ok(())
}

/// SIGTERM under load: what was answered 202 is in the topic.
async fn shutdown(world: &World) -> Result<()> {
    let place = async |n: usize| world.order(0, &format!("last-{n}")).await;
    let orders = async {
        let mut accepted = Vec::new();
        for n in 0..10_000 {
            match place(n).await {
                Ok(answer) if answer.status == 202 => accepted.push(answer.order_id()),
                // It is gone.
                Ok(_) | Err(_) => return accepted,
            }
        }
        accepted
    };
    let stop = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        world.stack.stop("ingest-1").await
    };
    let (accepted, stopped) = tokio::join!(orders, stop);
    assert!(stopped?, "it ends by itself");
    assert!(!accepted.is_empty());
    let logged = world.orders()?;
    assert!(accepted.iter().all(|id| logged.get(id) == Some(&1)), "accepted and not recorded");
    Ok(())
}
