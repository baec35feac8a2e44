//! The shop in three tiers, by `isolab tiers`: what must be so at each level.

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::lifecycle::until;
use crate::networked::{Host, ask};
use crate::{Done, checkout, text, tool};

/// Where the host finds the shop.
const URL: &str = "http://127.0.0.1:8080";

/// A shop that runs on a host of its own.
pub struct Shop {
    pub(crate) host: Host,
}

/// A host with the images that `scripts/make-tiers-images` makes.
pub fn host() -> Host {
    let host = Host::new();
    for tier in ["web", "app", "db"] {
        let image = checkout().join(format!("target/tiers-images/shop-{tier}.tar"));
        host.isolab(&["image", "load", text(&image)]).success();
    }
    host
}

impl Shop {
    /// Starts it there with these options of `isolab tiers up`.
    pub fn up(host: Host, options: &[&str]) -> Self {
        let shop = Self { host };
        shop.tiers(&[&["up", "--no-build"], options].concat()).success();
        shop
    }

    pub(crate) fn tiers(&self, words: &[&str]) -> Done {
        self.host.isolab(&[&["tiers"], words].concat())
    }

    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let text = self.tiers(&[words, &["--format", "json"]].concat()).success();
        serde_json::from_str(&text).unwrap()
    }

    /// Ends it, after which nothing of it is on its host.
    pub fn down(self) -> Host {
        self.tiers(&["down", "--volumes"]).success();
        assert_eq!(self.host.left(), [""; 0]);
        assert_eq!(self.host.isolab(&["ps", "-a", "-q"]).success(), "");
        assert!(!self.host.isolab(&["volume", "ls"]).success().contains("shop"));
        self.host
    }

    /// The names of a tier's instances that run.
    pub(crate) fn instances(&self, tier: &str) -> Vec<String> {
        let rows = self.json(&["status"]);
        let rows = rows.as_array().unwrap().iter().filter(|row| row["tier"] == tier);
        let rows = rows.filter(|row| row["state"] == "running");
        rows.map(|row| row["instance"].as_str().unwrap().to_owned()).collect()
    }
}

#[track_caller]
pub(crate) fn get(path: &str) -> String {
    ask(&format!("{URL}{path}")).unwrap_or_else(|| panic!("no answer to {path}"))
}

#[track_caller]
pub(crate) fn get_json(path: &str) -> Value {
    serde_json::from_str(&get(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The status of the answer to a request with these options of curl.
pub(crate) fn status(path: &str, options: &[&str]) -> String {
    let begin = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60"];
    let url = format!("{URL}{path}");
    tool("curl", &[&begin, options, &[url.as_str()]].concat())
}

/// Places an order through the web tier; gives the answer.
fn order(key: &str, body: &Value) -> Value {
    try_order(key, body).unwrap_or_else(|| panic!("no answer to order {key}"))
}

/// The same, where there may be no answer, or none of the application's.
pub(crate) fn try_order(key: &str, body: &Value) -> Option<Value> {
    let (key, body, url) =
        (format!("Idempotency-Key: {key}"), body.to_string(), format!("{URL}/api/orders"));
    let kind = "Content-Type: application/json";
    let words = ["-sS", "--max-time", "60", "-H", &key, "-H", kind, "-d", &body, &url];
    let output = Command::new("curl").args(words).output().unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

/// Everything of a shop: what it answers, what is told of it, and that nothing is left.
pub fn a_life(host: Host, levels: &[&str], expected: [(&str, &str); 3]) -> Host {
    let shop = Shop::up(host, &[levels, &["--apps", "2"]].concat());
    answers();
    a_page_and_what_it_asks_for();
    an_order();
    status_is_true(&shop, expected, 2);
    nobody_is_root(&shop, expected);
    traces(&shop);
    load(&shop);
    shop.down()
}

/// Each endpoint, through nginx.
fn answers() {
    let product = get_json("/api/products/7");
    assert_eq!(product["name"], "violet oak lamp no. 7");
    assert_eq!(get_json("/api/products/7"), product);
    let by_index = get_json("/api/products?q=turquoise+marble+kettle");
    let by_scan = get_json("/api/products?q=turquoise+marble+kettle&by=scan");
    assert_eq!(by_index["products"], by_scan["products"]);
    assert_eq!(by_index["products"].as_array().unwrap().len(), 10);
    // `head -c 32 /dev/zero | sha256sum`
    let once = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
    assert_eq!(get_json("/api/compute?rounds=1")["digest"], once);
    assert_eq!(get_json("/api/stats")["database"]["products"], 20_000);
    for (path, expected) in [
        ("/", "200"),
        ("/health", "200"),
        ("/nowhere", "404"),
        ("/api/nowhere", "404"),
        ("/api/products/0", "404"),
        ("/api/products?page=-1", "400"),
        ("/api/orders/1", "404"),
        // The application's own, which are not the world's.
        ("/metrics", "404"),
        ("/clock", "404"),
    ] {
        assert_eq!(status(path, &[]), expected, "{path}");
    }
    assert_eq!(status("/shop.css", &["-H", "Accept-Encoding: gzip"]), "200");
}

/// What a browser would fetch of a page: all that it and its scripts name is there, of the right kind.
fn a_page_and_what_it_asks_for() {
    let mut named = BTreeSet::new();
    for page in ["/", "/product?id=7"] {
        let page = get(page);
        named.extend(values(&page, "href=\""));
        named.extend(values(&page, "src=\""));
    }
    let scripts: Vec<_> = named.iter().filter(|path| path.ends_with(".js")).cloned().collect();
    assert!(scripts.len() >= 2, "{named:?}");
    for script in scripts {
        named.extend(values(&get(&script), "from \""));
    }
    let products = get_json("/api/products");
    let products = products["products"].as_array().unwrap();
    assert_eq!(products.len(), 24);
    let picture =
        |product: &Value| format!("/pictures/{}.svg", product["category"].as_str().unwrap());
    named.extend(products.iter().map(picture));
    for path in named {
        let url = format!("{URL}{path}");
        let head = tool("curl", &["-sS", "--max-time", "60", "-D", "-", "-o", "/dev/null", &url]);
        let kind = match path.rsplit_once('.') {
            Some((_, "css")) => "text/css",
            Some((_, "js")) => "application/javascript",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/html",
        };
        assert!(head.contains(" 200 ") && head.contains(kind), "{path}: {head}");
    }
}

/// Paths of ours that stand behind `begin`, up to the next quotation mark.
fn values(text: &str, begin: &str) -> Vec<String> {
    let values = text.split(begin).skip(1).filter_map(|rest| rest.split('"').next());
    values.filter(|value| value.starts_with('/')).map(str::to_owned).collect()
}

fn an_order() {
    let before = get_json("/api/products/11")["stock"].as_i64().unwrap();
    let body = json!({ "customer": "Ada", "items": [{ "product": 11, "quantity": 2 }] });
    let placed = order("first", &body);
    // Asked again, by whichever server, it is the same order.
    assert_eq!(order("first", &body), placed);
    let id = placed["id"].as_i64().unwrap_or_else(|| panic!("{placed}"));
    assert_eq!(get_json(&format!("/api/orders/{id}")), placed);
    let stock = || get_json("/api/products/11")["stock"].as_i64();
    // The other server hears of it by the database.
    until("the new stock, at both", || (0..4).all(|_| stock() == Some(before - 2)));
}

fn status_is_true(shop: &Shop, expected: [(&str, &str); 3], apps: usize) {
    let rows = shop.json(&["status"]);
    let rows = rows.as_array().unwrap();
    let tiers: Vec<_> = rows.iter().map(|row| row["tier"].as_str().unwrap()).collect();
    assert_eq!(tiers, [&["web"], &vec!["app"; apps][..], &["db"]].concat());
    for row in rows {
        let tier = row["tier"].as_str().unwrap();
        let (_, level) = expected.iter().find(|(name, _)| *name == tier).unwrap();
        assert_eq!((&row["level"], &row["state"]), (&json!(level), &json!("running")), "{row}");
        let is_machine = ["paravirt", "fullvirt"].contains(level);
        assert_eq!(row["vcpus"].is_u64(), is_machine, "{row}");
        assert!(row["address"].as_str().unwrap().starts_with("10."), "{row}");
        assert!(row["requests"].as_u64().unwrap() > 0, "{row}");
        assert!(row["memory"].as_u64().unwrap() > 1 << 16, "{row}");
        assert!(row["processes"].as_u64().unwrap() > 0, "{row}");
        if tier != "web" {
            let rate = row["cache"]["rate"].as_f64().unwrap_or_else(|| panic!("{row}"));
            assert!((0.0..=1.0).contains(&rate), "{row}");
        }
    }
    let table = shop.tiers(&["status"]).success();
    assert!(table.contains("VCPUS") && table.contains("db (primary)"), "{table}");
    assert_eq!(table.lines().count(), 1 + rows.len(), "{table}");
}

/// Whoever talks to the network, but for nginx's master, which does not read what comes.
fn nobody_is_root(shop: &Shop, expected: [(&str, &str); 3]) {
    for (tier, _) in expected {
        let name = &shop.instances(tier)[0];
        let lines = shop.host.isolab(&["top", name]).success();
        let root = lines.lines().skip(1).filter(|line| line.starts_with("0 "));
        let strange = |line: &&str| {
            !["nginx: master", "entrypoint", "sleep 1", "getent", "sort -u", "[", "isolab-"]
                .iter()
                .any(|known| line.contains(known))
        };
        let root: Vec<_> = root.filter(strange).collect();
        assert!(root.is_empty(), "{tier}: {root:?} of {lines}");
    }
}

fn traces(shop: &Shop) {
    let lanes = |story: &Value| {
        let spans = story["spans"].as_array().unwrap().iter();
        spans.map(|span| span["lane"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let all = BTreeSet::from(["client", "web", "app", "db"].map(str::to_owned));
    let search = shop.json(&["trace", "/api/products?q=turquoise+marble+kettle"]);
    assert_eq!(lanes(&search), all, "{search:#}");
    let statement = &search["statements"][0];
    assert!(statement["text"].as_str().unwrap().contains("websearch_to_tsquery"), "{statement}");
    assert!(statement["plan"].to_string().contains("product_words"), "{statement}");
    assert!(search["clock"]["error"].as_u64().unwrap() > 0, "{search:#}");
    // On one clock: who is asked begins after who asks, and is done before.
    let moments = |name: &str| {
        let spans = search["spans"].as_array().unwrap().iter();
        let span = spans.clone().find(|span| span["lane"] == name).unwrap();
        let time = |field: &str| {
            let value = &span[field];
            value["secs"].as_f64().unwrap() * 1e9 + value["nanos"].as_f64().unwrap()
        };
        (time("begin"), time("begin") + time("time"))
    };
    let (web, app) = (moments("web"), moments("app"));
    assert!(web.0 <= app.0 && app.1 <= web.1, "{search:#}");
    let counted = search["costs"].as_array().unwrap();
    assert_eq!(counted.len(), 4, "{search:#}");
    assert!(counted.iter().all(|cost| cost[1]["waits"].as_u64().is_some()), "{search:#}");
    // The second time it comes from the cache, unless the other server is asked; the third time at the latest.
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(lanes(&shop.json(&["trace", "/api/products/77"])));
    }
    assert!(seen.iter().any(|lanes| !lanes.contains("db")), "{seen:?}");
    let picture = shop.host.file("trace.svg");
    let drawn = shop.tiers(&["trace", "/shop.css", "--svg", text(&picture)]).success();
    assert!(drawn.contains("static") && drawn.contains("web answered alone"), "{drawn}");
    let parse = "import sys, xml.dom.minidom; print(xml.dom.minidom.parse(sys.argv[1]).documentElement.tagName)";
    assert_eq!(tool("python3", &["-c", parse, text(&picture)]), "svg\n");
    let body = r#"{"customer":"Ada","items":[{"product":12,"quantity":1}]}"#;
    let order = shop.json(&["trace", "/api/orders", "--post", body]);
    assert_eq!(order["status"], 201);
    let statements = order["statements"].to_string();
    for word in ["INSERT INTO shop_order ", "UPDATE product", "pg_notify"] {
        assert!(statements.contains(word), "no {word} in {statements}");
    }
    let setting = "SHOW auto_explain.log_min_duration";
    until("nothing of it stays on", || psql(shop, setting) == "-1");
}

/// What the database says to this, asked from inside.
fn psql(shop: &Shop, sql: &str) -> String {
    psql_in(shop, &shop.instances("db")[0], sql)
}

/// The same of one of several.
pub(crate) fn psql_in(shop: &Shop, db: &str, sql: &str) -> String {
    let words = ["exec", "--user", "postgres", db, "psql", "-Atc", sql, "shop"];
    shop.host.isolab(&words).success().trim().to_owned()
}

fn load(shop: &Shop) {
    let open = shop.json(&["load", "--rate", "20", "--duration", "3s", "--connections", "4"]);
    assert_eq!(
        (&open["all"]["answered"], &open["all"]["failed"]),
        (&json!(60), &json!(0)),
        "{open:#}"
    );
    let closed = shop.json(&["load", "--connections", "2", "--duration", "2s"]);
    assert!(closed["all"]["answered"].as_u64().unwrap() > 0, "{closed:#}");
    assert_eq!(closed["all"]["failed"], 0, "{closed:#}");
    assert!(closed["all"]["nanoseconds"]["p99"].as_u64().unwrap() > 0, "{closed:#}");
}

/// An application server is killed under load, so many times, comes back, and then the other one is stopped: no request
/// that may be asked twice fails.
pub fn servers_come_and_go(level: &str, rounds: u32) {
    let shop = Shop::up(host(), &["--isolation", level, "--apps", "2"]);
    let [first, second] = &shop.instances("app")[..] else { panic!("two servers") };
    // It ends when it is told to; the time is that of a test that hangs.
    let duration = format!("{}s", 600 * rounds);
    // What guests of an emulated host can carry, or their queue is full, and they say so with 503.
    let rate = if ["paravirt", "fullvirt"].contains(&level) { "10" } else { "50" };
    let load = ["tiers", "load", "--rate", rate, "--duration", &duration, "--format", "json"];
    let load = shop.host.start(&[&load[..], &["--mix", "cached=3,read=2,compute=1"]].concat());
    until_trusted(&shop, &[first, second]);
    let restarts =
        || shop.host.isolab(&["inspect", "--format", "{{.RestartCount}}", first]).success();
    for round in 1..=rounds {
        kill_server(&shop, first);
        until("it is started again", || restarts() == format!("{round}\n"));
        until_trusted(&shop, &[first, second]);
    }
    shop.host.isolab(&["stop", second]).success();
    let inspected =
        shop.host.isolab(&["inspect", "--format", "{{.State.ExitCode}}", second]).success();
    assert_eq!(inspected, "0\n");
    until_trusted(&shop, &[first]);
    load.signal(Signal::SIGINT);
    let load: Value = serde_json::from_str(&load.finish().success()).unwrap();
    assert_eq!(load["all"]["failed"], 0, "{load:#}");
    let answered = load["all"]["answered"].as_u64().unwrap();
    assert!(answered >= 3 * FEW as u64, "{load:#}");
    shop.down();
}

/// Requests that say who is asked: more than a worker of nginx that was told to end may still have under way, one on
/// each of the load's connections.
const FEW: usize = 20;

/// Waits until web sends requests to these application servers and no others, and passed over none for longer than it
/// leaves one out (`fail_timeout` in `tiers/web/nginx.conf`): to all of its workers all of these are well.
#[track_caller]
fn until_trusted(shop: &Shop, servers: &[&String]) {
    let web = &shop.instances("web")[0];
    let template = "{{.NetworkSettings.Networks.shop_front.IPAddress}}";
    // None while it is between two runs.
    let address = |name: &&String| {
        let done = shop.host.isolab(&["inspect", "--format", template, name]);
        done.status.success().then(|| format!("{}:8000", done.stdout.trim_end()))
    };
    // What comes from now on.
    let before = requests_of(shop, web).len();
    until(&format!("web trusts {servers:?}"), || {
        let addresses = servers.iter().map(address).collect::<Option<Vec<_>>>();
        let Some(addresses) = addresses else { return false };
        let lines = requests_of(shop, web).split_off(before);
        let well = lines.iter().rev().take_while(|line| addresses.contains(&line.0));
        let well: Vec<_> = well.collect();
        // Of the first and the last of these seconds there is a part: two whole ones at least.
        let seconds: BTreeSet<_> = well.iter().map(|line| &line.1).collect();
        let asked = |address: &String| well.iter().filter(|line| line.0 == *address).count();
        seconds.len() >= 4 && addresses.iter().all(|address| asked(address) > FEW)
    });
}

/// Of each request that web passed on: whom it asked, commas between them where it asked several, and in which second.
fn requests_of(shop: &Shop, web: &str) -> Vec<(String, String)> {
    let log = shop.host.isolab(&["logs", web]).success();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let lines = lines.map(|line| (text(&line, "upstream"), text(&line, "time")));
    lines.filter(|line| !line.0.is_empty()).collect()
}

/// Kills an application server, in a guest from inside: there it is no process of the host's.
fn kill_server(shop: &Shop, app: &str) {
    const PID: &str = "{{.State.Pid}}";
    const KILL: &str = r#"for process in /proc/[0-9]*; do
        read -r name <$process/comm && [ $name = isolab-shop ] && kill -9 ${process#/proc/}; done"#;
    match shop.host.isolab(&["inspect", "--format", PID, app]).success().trim() {
        // Cut off by the guest's end, or not.
        "0" => drop(shop.host.isolab(&["exec", app, "sh", "-c", KILL])),
        _ => kill_process(shop, app, PID),
    }
}

/// Kills a process of the host's, which `isolab inspect` tells by this template.
pub(crate) fn kill_process(shop: &Shop, instance: &str, template: &str) {
    let pid = shop.host.isolab(&["inspect", "--format", template, instance]).success();
    let pid: i32 = pid.trim().parse().unwrap();
    assert!(pid > 1, "{instance} has no process on the host");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// How many orders are half there.
pub(crate) const HALF_ORDERS: &str = "SELECT count(*) FROM shop_order o WHERE total_cents <> (SELECT coalesce(sum(quantity * price_cents), -1) \
     FROM shop_order_item i WHERE i.order_id = o.id)";

/// The database is killed while orders are placed; all that were acknowledged are there, and none is half there.
pub fn acknowledged_orders_stay(host: Host, level: &str, rounds: u32) -> Host {
    let shop = Shop::up(host, &["--isolation", level]);
    let db = &shop.instances("db")[0];
    let mut acknowledged = 0;
    for round in 0..rounds {
        let words = ["tiers", "load", "--connections", "4", "--duration", "3s", "--mix", "write=1"];
        let load = shop.host.start(&[&words[..], &["--format", "json"]].concat());
        let orders = |sql: &str| psql(&shop, sql).parse::<u64>().unwrap();
        let before = orders("SELECT count(*) FROM shop_order");
        until("orders are placed", || orders("SELECT count(*) FROM shop_order") > before);
        match level {
            "process" | "container" => kill_process(&shop, db, "{{.State.Pid}}"),
            // The monitor, and with it all that the guest has not written.
            _ => kill_process(&shop, db, "{{.State.ConmonPid}}"),
        }
        let load: Value = serde_json::from_str(&load.finish().stdout).unwrap();
        acknowledged += load["all"]["answered"].as_u64().unwrap();
        until("it is gone", || !shop.instances("db").contains(db));
        shop.host.isolab(&["start", db]).success();
        until("it takes connections", || status("/api/stats", &[]) == "200");
        let there = orders("SELECT count(*) FROM shop_order");
        assert!(there >= acknowledged, "round {round}: {there} of {acknowledged}");
        assert_eq!(orders(HALF_ORDERS), 0, "round {round}");
    }
    assert!(acknowledged > 0);
    shop.down()
}

/// `isolab tiers` says what is missing.
pub fn failures() {
    let host = Host::new();
    for words in [&["status"][..], &["load"], &["trace", "/"]] {
        let done = host.isolab(&[&["tiers"], words].concat());
        done.fails_with(125, &["no shop `shop` is running", "isolab tiers up"]);
    }
    host.isolab(&["tiers", "trace", "no-path"]).fails_with(2, &["expected a path"]);
    host.isolab(&["tiers", "load", "--mix", "magic"]).fails_with(2, &["`magic` is none of"]);
}
