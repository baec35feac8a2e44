//! `GET /api/products`: products by number, by words through the index, or by a scan of all.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use crate::error::ShopError;
use crate::json::Json;
use crate::product::{COLUMNS, Product};
use crate::server_timing::{Part, ServerTiming};
use crate::shop::Shop;

/// Products on a page.
const PAGE: i64 = 24;
const LAST_PAGE: i64 = 10_000;
/// Longer ones would only be work.
const LONGEST_QUERY: usize = 200;

/// What is asked for.
#[derive(Debug, Deserialize)]
pub struct Parameters {
    #[serde(default)]
    q: String,
    #[serde(default)]
    by: By,
    #[serde(default)]
    page: i64,
}

/// How the words are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// Words, in the full-text index.
    #[default]
    Index,
    /// A part of the text, in each product.
    Scan,
}

/// One page of what was found.
#[derive(Debug, Serialize)]
pub struct Found {
    page: i64,
    /// Whether there is another page.
    has_more: bool,
    products: Vec<Product>,
}

/// Answers a page.
pub async fn search(
    State(shop): State<Arc<Shop>>,
    Extension(timing): Extension<ServerTiming>,
    Query(Parameters { q, by, page }): Query<Parameters>,
) -> Result<Json<Found>, ShopError> {
    if q.len() > LONGEST_QUERY {
        return Err(ShopError::Bad(format!("q: at most {LONGEST_QUERY} bytes")));
    }
    if !(0..=LAST_PAGE).contains(&page) {
        return Err(ShopError::Bad(format!("page: expected 0 to {LAST_PAGE}")));
    }
    let (condition, argument) = match by {
        _ if q.trim().is_empty() => ("$1 = ''", String::new()),
        By::Index => ("words @@ websearch_to_tsquery('english', $1)", q),
        By::Scan => (r"name || ' ' || description ILIKE $1", like(&q)),
    };
    let text =
        format!("SELECT {COLUMNS} FROM product WHERE {condition} ORDER BY id LIMIT $2 OFFSET $3");
    let connection = shop.database.connection(&timing).await?;
    let ask = async {
        let statement = connection.prepare_cached(&text).await?;
        connection.query(&statement, &[&argument, &(PAGE + 1), &(page * PAGE)]).await
    };
    let rows = timing.measure(Part::Database, ask).await?;
    let products = rows.iter().take(PAGE as usize).map(Product::from_row).collect::<Result<_, _>>();
    Ok(Json(Found { page, has_more: rows.len() as i64 > PAGE, products: products? }))
}

/// A pattern for what contains `part`.
fn like(part: &str) -> String {
    let escaped = part.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_of_the_client_are_letters() {
        assert_eq!(like(r"50% _\"), r"%50\% \_\\%");
    }
}
