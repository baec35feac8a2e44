//! `GET /api/compute`: work for the processor alone.

use std::time::Instant;

use axum::Extension;
use axum::extract::Query;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::ShopError;
use crate::json::Json;
use crate::server_timing::{Part, ServerTiming};

/// About a second of a slow processor.
const MOST_ROUNDS: u32 = 2_000_000;

/// What is asked for.
#[derive(Debug, Deserialize)]
pub struct Parameters {
    #[serde(default = "default_rounds")]
    rounds: u32,
}

fn default_rounds() -> u32 {
    10_000
}

/// The same everywhere for the same number of rounds, so that a client sees that the work was done.
#[derive(Debug, Serialize)]
pub struct Computed {
    rounds: u32,
    digest: String,
}

/// Hashes a hash, so many times.
pub async fn compute(
    Extension(timing): Extension<ServerTiming>,
    Query(Parameters { rounds }): Query<Parameters>,
) -> Result<Json<Computed>, ShopError> {
    if rounds == 0 || rounds > MOST_ROUNDS {
        return Err(ShopError::Bad(format!("rounds: expected 1 to {MOST_ROUNDS}")));
    }
    let asked = Instant::now();
    // On a thread of its own: requests that only wait are not to wait for this one too.
    let work = move || {
        let began = Instant::now();
        (began, hash(rounds), Instant::now())
    };
    let (began, digest, ended) = tokio::task::spawn_blocking(work).await?;
    timing.add(Part::Queue, began - asked);
    timing.add(Part::Compute, ended - began);
    Ok(Json(Computed { rounds, digest }))
}

fn hash(rounds: u32) -> String {
    let mut digest = [0; 32];
    for _ in 0..rounds {
        digest = Sha256::digest(digest).into();
    }
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha_256_s() {
        // `head -c 32 /dev/zero | sha256sum`
        let once = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        assert_eq!(hash(1), once);
        assert_ne!(hash(2), once);
    }
}
