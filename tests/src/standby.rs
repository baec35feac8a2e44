//! The shop with two databases (`isolab tiers up --db-standby`): what is left of the orders when the one that writes is
//! lost.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use crate::lifecycle::until;
use crate::tiers::{HALF_ORDERS, Shop, host, kill_process, psql_in, try_order};

/// How many place orders at a time.
const CUSTOMERS: usize = 3;

/// The database that writes is killed with all of its instance while orders are placed: the other one takes over, no
/// order that was acknowledged is lost, and none is half there. The lost one comes back and follows; then the same the
/// other way round.
pub fn takes_over(level: &str) {
    let shop = Shop::up(host(), &["--isolation", level, "--db-standby"]);
    assert_eq!(shop.instances("monitor").len(), 1);
    for round in 0..2 {
        until("both have every order", || is_synchronous(&shop));
        let (mut lost, mut next) = (None, None);
        until("the application has one", || {
            (lost, next) = (shop.primary(), shop.standby());
            lost.is_some() && next.is_some()
        });
        let (lost, next) = (lost.unwrap(), next.unwrap());
        let customers = Customers::come();
        until("orders are placed", || customers.acknowledged() > 20);
        // Its supervisor, and with it all of the instance; nothing starts it again.
        kill_process(&shop, &lost, "{{.State.ConmonPid}}");
        until("it is gone", || !shop.instances("db").contains(&lost));
        until("the other one writes", || shop.primary().as_ref() == Some(&next));
        let before = customers.acknowledged();
        until("orders are placed again", || customers.acknowledged() > before + 20);
        let acknowledged = customers.leave();
        let there = psql_in(&shop, &next, "SELECT idempotency_key FROM shop_order");
        let there: BTreeSet<_> = there.lines().map(str::to_owned).collect();
        let missing: Vec<_> = acknowledged.difference(&there).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} of {}", acknowledged.len());
        assert_eq!(psql_in(&shop, &next, HALF_ORDERS), "0", "round {round}");
        shop.host.isolab(&["start", &lost]).success();
    }
    until("both have every order", || is_synchronous(&shop));
    shop.down();
}

impl Shop {
    /// The database that writes, if the application has one.
    fn primary(&self) -> Option<String> {
        self.database("primary")
    }

    /// The one that follows.
    fn standby(&self) -> Option<String> {
        self.database("standby")
    }

    fn database(&self, role: &str) -> Option<String> {
        let rows = self.json(&["status"]);
        let row = rows.as_array().unwrap().iter().find(|row| row["role"] == role)?;
        Some(row["instance"].as_str().unwrap().to_owned())
    }
}

/// Whether a commit waits until the other database has it, and the monitor knows: one is in the state `primary`, in which
/// replication is synchronous, the other in `secondary`.
fn is_synchronous(shop: &Shop) -> bool {
    let monitor = &shop.instances("monitor")[0];
    let ask = "SELECT string_agg(reportedstate::text, ' ' ORDER BY reportedstate::text) FROM pgautofailover.node \
               WHERE reportedstate = goalstate";
    let words = ["exec", "--user", "postgres", monitor, "psql", "-Atc", ask, "pg_auto_failover"];
    shop.host.isolab(&words).success() == "primary secondary\n"
}

/// People who order, each one order after the other.
struct Customers {
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Customers {
    /// They begin.
    fn come() -> Self {
        let (is_over, acknowledged) = (Arc::default(), Arc::default());
        let mut customers = Self { is_over, acknowledged, threads: Vec::new() };
        for number in 0..CUSTOMERS {
            let (is_over, acknowledged) =
                (Arc::clone(&customers.is_over), Arc::clone(&customers.acknowledged));
            let order = move || {
                for order in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{:?}-{number}-{order}", thread::current().id());
                    let body = json!({ "customer": "Ada", "items": [
                        { "product": 1 + order % 1000, "quantity": 1 },
                        { "product": 2000 + order % 1000, "quantity": 2 } ] });
                    if try_order(&key, &body).is_some_and(|placed: Value| placed["id"].is_i64()) {
                        acknowledged.lock().unwrap().insert(key);
                    }
                }
            };
            customers.threads.push(thread::spawn(order));
        }
        customers
    }

    /// How many orders were confirmed.
    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// They end, and tell which orders were confirmed.
    fn leave(mut self) -> BTreeSet<String> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

impl Drop for Customers {
    /// Of a test that failed.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
