//! `POST /api/orders`: a transaction that happens once, however often the client asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deadpool_postgres::{Object, Transaction};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::database::CHANGES;
use crate::error::ShopError;
use crate::json::{self, Json};
use crate::server_timing::{Part, ServerTiming};
use crate::shop::Shop;

/// What the client calls its order (draft-ietf-httpapi-idempotency-key-header).
const KEY: &str = "idempotency-key";
const LONGEST_KEY: usize = 64;
const MOST_ITEMS: usize = 50;
const LONGEST_NAME: usize = 200;
const MOST_OF_ONE: i64 = 1000;

/// What is ordered.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    customer: String,
    items: Vec<Item>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Item {
    product: i64,
    quantity: i64,
}

/// What was ordered.
#[derive(Debug, Serialize)]
pub struct Order {
    id: i64,
    customer: String,
    total_cents: i64,
    items: Vec<Ordered>,
}

#[derive(Debug, Serialize)]
struct Ordered {
    product: i64,
    quantity: i64,
    price_cents: i64,
}

/// Places an order: 201 the first time, 200 when this key has placed it before.
pub async fn place(
    State(shop): State<Arc<Shop>>,
    Extension(timing): Extension<ServerTiming>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ShopError> {
    let body = body.map_err(|rejection| ShopError::Bad(rejection.body_text()))?;
    let wanted: Wanted = json::read(&headers, &body)?;
    let key = key(&headers)?;
    let quantities = wanted.check()?;
    let digest = wanted.digest(&quantities);
    let mut connection = shop.database.connection(&timing).await?;
    let work = async {
        let transaction = connection.transaction().await?;
        let placed = match begin(&transaction, key, &digest, &wanted.customer).await? {
            Begun::New(id) => {
                fill(&transaction, id, &quantities).await?;
                (id, StatusCode::CREATED)
            }
            Begun::Known(id) => (id, StatusCode::OK),
        };
        transaction.commit().await?;
        Ok::<_, ShopError>(placed)
    };
    let (id, status) = timing.measure(Part::Database, work).await?;
    if status == StatusCode::CREATED {
        // The announcement comes to us as well, but our own client may ask before.
        for id in quantities.keys() {
            shop.cache.invalidate(*id).await;
        }
        shop.metrics.orders.inc();
    }
    let location = format!("/api/orders/{id}");
    // On the same connection: one that holds a connection and waits for another waits for itself.
    let order = find(&connection, &timing, id).await?;
    Ok((status, [(header::LOCATION, location)], Json(order)).into_response())
}

/// Answers an order.
pub async fn get(
    State(shop): State<Arc<Shop>>,
    Extension(timing): Extension<ServerTiming>,
    Path(id): Path<i64>,
) -> Result<Json<Order>, ShopError> {
    let connection = shop.database.connection(&timing).await?;
    find(&connection, &timing, id).await.map(Json)
}

fn key(headers: &HeaderMap) -> Result<&str, ShopError> {
    let key = headers.get(KEY).and_then(|key| key.to_str().ok());
    let key = key.filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    key.ok_or_else(|| {
        let text = "Idempotency-Key: expected a header of 1 to 64 characters of ASCII";
        ShopError::Bad(text.to_owned())
    })
}

impl Wanted {
    /// How many of each product, in the order in which every transaction locks them.
    fn check(&self) -> Result<BTreeMap<i64, i64>, ShopError> {
        let bad = |text: String| Err(ShopError::Bad(text));
        if self.customer.trim().is_empty() || self.customer.len() > LONGEST_NAME {
            return bad(format!("customer: expected a name of at most {LONGEST_NAME} bytes"));
        }
        // PostgreSQL's text has none.
        if self.customer.contains('\0') {
            return bad("customer: a zero byte is in it".to_owned());
        }
        if self.items.is_empty() || self.items.len() > MOST_ITEMS {
            return bad(format!("items: expected 1 to {MOST_ITEMS}"));
        }
        let mut quantities = BTreeMap::new();
        for &Item { product, quantity } in &self.items {
            if !(1..=MOST_OF_ONE).contains(&quantity) {
                return bad(format!("quantity of product {product}: expected 1 to {MOST_OF_ONE}"));
            }
            *quantities.entry(product).or_insert(0) += quantity;
        }
        Ok(quantities)
    }

    /// The same for the same order, in whatever way it is written.
    fn digest(&self, quantities: &BTreeMap<i64, i64>) -> Vec<u8> {
        let mut digest = Sha256::new();
        digest.update((self.customer.len() as u64).to_le_bytes());
        digest.update(&self.customer);
        for (product, quantity) in quantities {
            digest.update(product.to_le_bytes());
            digest.update(quantity.to_le_bytes());
        }
        digest.finalize().to_vec()
    }
}

/// What the key named before.
enum Begun {
    /// Nothing: the order has this number now, and nothing in it.
    New(i64),
    /// This order, which is the same.
    Known(i64),
}

/// Takes the key. Of two requests with one key at the same time, the second waits here for the first's end.
async fn begin(
    transaction: &Transaction<'_>,
    key: &str,
    digest: &[u8],
    customer: &str,
) -> Result<Begun, ShopError> {
    let insert = "INSERT INTO shop_order (idempotency_key, digest, customer) VALUES ($1, $2, $3) \
                  ON CONFLICT (idempotency_key) DO NOTHING RETURNING id";
    let insert = transaction.prepare_cached(insert).await?;
    if let Some(row) = transaction.query_opt(&insert, &[&key, &digest, &customer]).await? {
        return Ok(Begun::New(row.try_get(0)?));
    }
    let select = "SELECT id, digest FROM shop_order WHERE idempotency_key = $1";
    let select = transaction.prepare_cached(select).await?;
    let row = transaction.query_one(&select, &[&key]).await?;
    let (id, known): (i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
    if known == digest { Ok(Begun::Known(id)) } else { Err(ShopError::KeyReused) }
}

/// Takes the products from the stock and writes them into the order; all of it or, on an error, nothing.
async fn fill(
    transaction: &Transaction<'_>,
    order: i64,
    quantities: &BTreeMap<i64, i64>,
) -> Result<(), ShopError> {
    let take = "UPDATE product SET stock = stock - $2 WHERE id = $1 AND stock >= $2 \
                RETURNING price_cents";
    let item = "INSERT INTO shop_order_item (order_id, product_id, quantity, price_cents) \
                VALUES ($1, $2, $3, $4)";
    let take = transaction.prepare_cached(take).await?;
    let item = transaction.prepare_cached(item).await?;
    let mut total = 0;
    for (product, quantity) in quantities {
        let Some(row) = transaction.query_opt(&take, &[product, quantity]).await? else {
            return Err(missing(transaction, *product, *quantity).await?);
        };
        let price: i64 = row.try_get(0)?;
        total += price * quantity;
        transaction.execute(&item, &[&order, product, quantity, &price]).await?;
    }
    let sum = "UPDATE shop_order SET total_cents = $2 WHERE id = $1";
    let sum = transaction.prepare_cached(sum).await?;
    transaction.execute(&sum, &[&order, &total]).await?;
    // Delivered at the commit, and only then (NOTIFY).
    let changed = quantities.keys().map(i64::to_string).collect::<Vec<_>>().join(",");
    let notify = transaction.prepare_cached("SELECT pg_notify($1, $2)").await?;
    transaction.execute(&notify, &[&CHANGES, &changed]).await?;
    Ok(())
}

/// Why a product could not be taken.
async fn missing(
    transaction: &Transaction<'_>,
    product: i64,
    quantity: i64,
) -> Result<ShopError, ShopError> {
    let stock = transaction.prepare_cached("SELECT stock FROM product WHERE id = $1").await?;
    let Some(row) = transaction.query_opt(&stock, &[&product]).await? else {
        return Ok(ShopError::NotFound(format!("there is no product {product}")));
    };
    let stock: i64 = row.try_get(0)?;
    Ok(ShopError::Conflict(format!("product {product}: {stock} left, {quantity} wanted")))
}

async fn find(connection: &Object, timing: &ServerTiming, id: i64) -> Result<Order, ShopError> {
    let ask = async {
        let order = "SELECT customer, total_cents FROM shop_order WHERE id = $1";
        let order = connection.prepare_cached(order).await?;
        let items = "SELECT product_id, quantity, price_cents FROM shop_order_item \
                     WHERE order_id = $1 ORDER BY product_id";
        let items = connection.prepare_cached(items).await?;
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&id];
        tokio::try_join!(
            connection.query_opt(&order, &arguments),
            connection.query(&items, &arguments)
        )
    };
    let (order, items) = timing.measure(Part::Database, ask).await?;
    let order = order.ok_or_else(|| ShopError::NotFound(format!("there is no order {id}")))?;
    let mut ordered = Vec::new();
    for row in &items {
        let (product, quantity, price_cents) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        ordered.push(Ordered { product, quantity, price_cents });
    }
    let (customer, total_cents) = (order.try_get(0)?, order.try_get(1)?);
    Ok(Order { id, customer, total_cents, items: ordered })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(customer: &str, items: &[(i64, i64)]) -> Wanted {
        let items = items.iter().map(|&(product, quantity)| Item { product, quantity }).collect();
        Wanted { customer: customer.to_owned(), items }
    }

    #[test]
    fn orders_that_mean_the_same_are_the_same() {
        let digest = |wanted: Wanted| wanted.digest(&wanted.check().unwrap());
        let first = digest(wanted("Ada", &[(1, 2), (7, 1)]));
        assert_eq!(first, digest(wanted("Ada", &[(7, 1), (1, 1), (1, 1)])));
        for other in [
            wanted("Ada", &[(1, 2)]),
            wanted("Ada", &[(1, 1), (7, 2)]),
            wanted("Bob", &[(1, 2), (7, 1)]),
        ] {
            assert_ne!(first, digest(other));
        }
    }

    #[test]
    fn what_cannot_be_ordered_is_named() {
        let many = [(1, 1); MOST_ITEMS + 1];
        for (wanted, word) in [
            (wanted(" ", &[(1, 1)]), "customer"),
            (wanted("a\0b", &[(1, 1)]), "customer"),
            (wanted("Ada", &[]), "items"),
            (wanted("Ada", &many), "items"),
            (wanted("Ada", &[(1, 0)]), "quantity of product 1"),
            (wanted("Ada", &[(3, MOST_OF_ONE + 1)]), "quantity of product 3"),
        ] {
            let error = wanted.check().unwrap_err();
            assert!(matches!(&error, ShopError::Bad(text) if text.starts_with(word)), "{error}");
        }
    }
}
