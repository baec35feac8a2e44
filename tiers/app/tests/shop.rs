//! The shop's server before a real PostgreSQL. Needs root, to become PostgreSQL's user.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod support;

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use support::{Postgres, Server, wait_for};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(120);

async fn get(url: String) -> Response {
    Client::new().get(url).send().await.unwrap()
}

async fn json_of(server: &Server, path: &str) -> Value {
    let response = get(format!("{}{path}", server.url)).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.json().await.unwrap()
}

fn order(server: &Server, key: &str, body: &Value) -> reqwest::RequestBuilder {
    let request = Client::new().post(format!("{}/api/orders", server.url));
    request.header("Idempotency-Key", key).json(body)
}

/// Asks again until it is so. What changes tells nobody, so that it is asked for.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never {what}"));
}

/// One database for all of it: making one takes longer than everything that is asked of it.
#[tokio::test(flavor = "multi_thread")]
async fn as_root_the_shop() {
    // The workspace's reqwest knows TLS, and wants to be told by what, also by who does without.
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let mut postgres = Postgres::start();
    let server = Server::start(&postgres, &[]);
    // What it has in its cache before that is dropped.
    wait_for(&server.log, "hearing of changed products");
    answers(&server).await;
    orders_happen_once(&postgres, &server).await;
    changes_reach_other_servers(&postgres, &server).await;
    a_full_queue_answers_at_once(&postgres).await;
    what_is_under_way_ends(&postgres).await;
    a_lost_database_is_found_again(&mut postgres, &server).await;
}

async fn answers(server: &Server) {
    let product = json_of(server, "/api/products/7").await;
    assert_eq!(product["name"], "violet oak lamp no. 7");
    let again = get(format!("{}/api/products/7", server.url)).await;
    let timing = again.headers()["server-timing"].to_str().unwrap().to_owned();
    assert!(timing.starts_with("queue;dur=") && timing.contains("cache;desc=hit"), "{timing}");
    assert!(!timing.contains("db;"), "{timing}");
    assert_eq!(again.json::<Value>().await.unwrap(), product);

    // Both ways find the same where whole words are asked for.
    let by_index = json_of(server, "/api/products?q=turquoise+marble+kettle").await;
    let by_scan = json_of(server, "/api/products?q=turquoise+marble+kettle&by=scan").await;
    assert_eq!(by_index["products"], by_scan["products"]);
    assert_eq!(by_index["products"].as_array().unwrap().len(), 10);
    let page = json_of(server, "/api/products?page=1").await;
    assert_eq!((&page["products"][0]["id"], &page["has_more"]), (&json!(25), &json!(true)));

    let computed = json_of(server, "/api/compute?rounds=1").await;
    let once = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
    assert_eq!(computed["digest"], once);

    for (path, status) in [
        ("/api/products/0", StatusCode::NOT_FOUND),
        ("/api/products/x", StatusCode::BAD_REQUEST),
        ("/api/products?page=-1", StatusCode::BAD_REQUEST),
        ("/api/products?by=magic", StatusCode::BAD_REQUEST),
        ("/api/compute?rounds=0", StatusCode::BAD_REQUEST),
        ("/api/orders/1", StatusCode::NOT_FOUND),
        ("/api/nothing", StatusCode::NOT_FOUND),
        ("/health", StatusCode::OK),
        ("/ready", StatusCode::OK),
    ] {
        assert_eq!(get(format!("{}{path}", server.url)).await.status(), status, "{path}");
    }
    let stats = json_of(server, "/api/stats").await;
    assert_eq!(
        (&stats["database"]["products"], &stats["cache"]["hits"]),
        (&json!(20_000), &json!(1))
    );
    let metrics = get(format!("{}/metrics", server.url)).await.text().await.unwrap();
    let line = r#"shop_requests_total{method="GET",route="/api/products/{id}",status="200"} 2"#;
    assert!(metrics.contains(line) && metrics.ends_with("# EOF\n"), "{metrics}");
}

async fn orders_happen_once(postgres: &Postgres, server: &Server) {
    let body = json!({ "customer": "Ada", "items": [{ "product": 7, "quantity": 2 }] });
    let before = json_of(server, "/api/products/7").await["stock"].as_i64().unwrap();

    // The same order twenty times at once is one order.
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        requests.spawn(order(server, "once", &body).send());
    }
    let mut created = 0;
    let mut ids = Vec::new();
    while let Some(response) = requests.join_next().await {
        let response = response.unwrap().unwrap();
        created += u32::from(response.status() == StatusCode::CREATED);
        ids.push(response.json::<Value>().await.unwrap()["id"].as_i64().unwrap());
    }
    ids.dedup();
    assert_eq!((created, ids.len()), (1, 1));
    assert_eq!(json_of(server, "/api/products/7").await["stock"], before - 2);
    let placed = json_of(server, &format!("/api/orders/{}", ids[0])).await;
    assert_eq!((&placed["customer"], &placed["items"][0]["quantity"]), (&json!("Ada"), &json!(2)));

    let too_many = json!({ "customer": "Ada", "items": [
        { "product": 7, "quantity": 1 }, { "product": 8, "quantity": 1000 } ] });
    postgres.psql("UPDATE product SET stock = 999 WHERE id = 8");
    let unknown = json!({ "customer": "Ada", "items": [{ "product": 0, "quantity": 1 }] });
    let other = json!({ "customer": "Bob", "items": [{ "product": 7, "quantity": 2 }] });
    for (key, body, status) in [
        ("once", &other, StatusCode::UNPROCESSABLE_ENTITY),
        ("more", &too_many, StatusCode::CONFLICT),
        ("none", &unknown, StatusCode::NOT_FOUND),
        ("", &body, StatusCode::BAD_REQUEST),
        ("bad", &json!({ "customer": "Ada" }), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(order(server, key, body).send().await.unwrap().status(), status, "{key}");
    }
    // What failed took nothing, the first product of a failed order included.
    let left = postgres.psql("SELECT stock FROM product WHERE id = 7");
    assert_eq!(left, (before - 2).to_string());
    assert_eq!(postgres.psql("SELECT count(*) FROM shop_order"), "1");
}

async fn changes_reach_other_servers(postgres: &Postgres, first: &Server) {
    let second = Server::start(postgres, &[]);
    wait_for(&second.log, "hearing of changed products");
    let before = json_of(&second, "/api/products/9").await["stock"].as_i64().unwrap();
    let body = json!({ "customer": "Ada", "items": [{ "product": 9, "quantity": 1 }] });
    let placed = order(first, "heard", &body).send().await.unwrap();
    assert_eq!(placed.status(), StatusCode::CREATED);
    // Within the cache's 30 seconds only the announcement can tell.
    until("the new stock", async || {
        json_of(&second, "/api/products/9").await["stock"] == before - 1
    })
    .await;
}

async fn a_full_queue_answers_at_once(postgres: &Postgres) {
    let server = Server::start(postgres, &["--concurrency", "1", "--queue", "1"]);
    let mut requests = JoinSet::new();
    for _ in 0..8 {
        requests.spawn(get(format!("{}/api/compute?rounds=300000", server.url)));
    }
    let mut statuses = Vec::new();
    while let Some(response) = requests.join_next().await {
        let response = response.unwrap();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(response.headers()["retry-after"], "1");
        }
        statuses.push(response.status());
    }
    let count = |status| statuses.iter().filter(|it| **it == status).count();
    let (served, refused) = (count(StatusCode::OK), count(StatusCode::SERVICE_UNAVAILABLE));
    assert!(served >= 2 && refused >= 1 && served + refused == 8, "{statuses:?}");
}

async fn what_is_under_way_ends(postgres: &Postgres) {
    let mut server = Server::start(postgres, &[]);
    let url = format!("{}/api/compute?rounds=1000000", server.url);
    let request = tokio::spawn(get(url));
    until("under way", async || json_of(&server, "/api/stats").await["requests"]["working"] == 2)
        .await;
    server.terminate();
    assert_eq!(request.await.unwrap().status(), StatusCode::OK);
    let status = tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

async fn a_lost_database_is_found_again(postgres: &mut Postgres, server: &Server) {
    postgres.kill();
    until("not ready", async || {
        get(format!("{}/ready", server.url)).await.status() == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let lost = get(format!("{}/api/products?q=lamp", server.url)).await;
    assert_eq!(lost.status(), StatusCode::SERVICE_UNAVAILABLE);
    postgres.restart();
    until("ready", async || get(format!("{}/ready", server.url)).await.status() == StatusCode::OK)
        .await;
    assert_eq!(json_of(server, "/api/products?q=lamp").await["products"][0]["id"], 1);
}
