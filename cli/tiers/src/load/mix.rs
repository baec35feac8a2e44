//! What is asked for, and how often.

use std::str::FromStr;

use hyper::Method;
use serde_json::json;

use crate::http::Ask;

/// What a request makes the tiers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A file: web alone.
    Static,
    /// Hashes: web and application.
    Compute,
    /// A product of a few: mostly the application's cache.
    Cached,
    /// A search by the index: database.
    Read,
    /// A search through all products: database.
    Scan,
    /// An order: a transaction.
    Write,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Static, Self::Compute, Self::Cached, Self::Read, Self::Scan, Self::Write];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Compute => "compute",
            Self::Cached => "cached",
            Self::Read => "read",
            Self::Scan => "scan",
            Self::Write => "write",
        }
    }

    /// The request; `random` says which of its many, `run` and `number` make an order's key its own.
    fn ask(self, random: u64, run: u64, number: u64) -> Ask {
        const WORDS: [&str; 8] =
            ["lamp", "chair", "kettle", "oak", "steel", "wool", "compass", "harbour"];
        let word = WORDS[(random % WORDS.len() as u64) as usize];
        match self {
            Self::Static => Ask::get("/shop.css"),
            Self::Compute => Ask::get("/api/compute?rounds=1000"),
            Self::Cached => Ask::get(format!("/api/products/{}", 1 + random % HOT_PRODUCTS)),
            Self::Read => Ask::get(format!("/api/products?q={word}&page={}", random / 8 % 4)),
            Self::Scan => Ask::get(format!("/api/products?q={word}&by=scan")),
            Self::Write => Ask {
                method: Method::POST,
                path: "/api/orders".to_owned(),
                headers: vec![("idempotency-key", format!("load-{run:016x}-{number}"))],
                // Not of those that are read from the cache, which would forget them.
                body: json!({ "customer": "load", "items": [
                    { "product": HOT_PRODUCTS + 1 + random % COLD_PRODUCTS, "quantity": 1 } ] })
                .to_string(),
            },
        }
    }
}

/// Products that are asked for again and again.
const HOT_PRODUCTS: u64 = 100;
/// Products that are ordered.
const COLD_PRODUCTS: u64 = 10_000;

/// Kinds with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u32)>);

impl Mix {
    /// What people do in a shop, more or less: they look much, search some, and buy little.
    pub const DEFAULT: &str = "static=40,compute=10,cached=30,read=14,scan=1,write=5";

    /// The kinds in it.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.0.iter().map(|(kind, _)| *kind)
    }

    /// The request with this number of a run: the same numbers are the same requests, but for the orders' keys.
    pub fn request(&self, run: u64, number: u64) -> (Kind, Ask) {
        let random = scramble(number);
        let whole: u64 = self.0.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = random % whole;
        let mut chosen = Kind::Static;
        for (kind, weight) in &self.0 {
            chosen = *kind;
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        (chosen, chosen.ask(scramble(random), run, number))
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): numbers in a row become numbers all over.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix: Vec<(Kind, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let names = Kind::ALL.map(Kind::name).join(", ");
            let kind = kind.ok_or_else(|| format!("`{name}` is none of {names}"))?;
            let weight = weight.parse().map_err(|_| format!("`{weight}` is no weight"))?;
            if mix.iter().any(|(known, _)| *known == kind) {
                return Err(format!("{name} is named twice"));
            }
            if weight > 0 {
                mix.push((kind, weight));
            }
        }
        if mix.is_empty() { Err("nothing is asked for".to_owned()) } else { Ok(Self(mix)) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn kinds_come_as_often_as_their_weights_say() {
        let mix: Mix = Mix::DEFAULT.parse().unwrap();
        let mut counts = BTreeMap::new();
        for number in 0..100_000 {
            *counts.entry(mix.request(0, number).0).or_insert(0_u32) += 1;
        }
        for (kind, share) in &mix.0 {
            let (count, expected) = (counts[kind], share * 1000);
            assert!(count.abs_diff(expected) < 500, "{kind:?}: {count}, {expected} expected");
        }
        let only: Mix = "write".parse().unwrap();
        let keys: BTreeSet<_> =
            (0..1000).map(|n| only.request(7, n).1.headers[0].1.clone()).collect();
        assert_eq!(keys.len(), 1000);
        assert!(keys.iter().all(|key| key.len() <= 64));
    }

    #[test]
    fn what_is_no_mix_is_named() {
        for (text, word) in [
            ("", "`` is none of"),
            ("magic=1", "`magic` is none of static"),
            ("read=x", "`x` is no weight"),
            ("read=1,read=2", "read is named twice"),
            ("read=0", "nothing"),
        ] {
            assert!(text.parse::<Mix>().unwrap_err().contains(word), "{text}");
        }
    }
}
