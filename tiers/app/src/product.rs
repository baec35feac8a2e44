//! `GET /api/products/{id}`: one product, from the cache if it has it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use tokio_postgres::Row;

use crate::error::ShopError;
use crate::server::Shop;
use crate::server_timing::{Part, ServerTiming};

/// Something that can be bought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Product {
    /// Its number.
    pub id: i64,
    /// What it is called.
    pub name: String,
    /// Among what it is found.
    pub category: String,
    /// What is said of it.
    pub description: String,
    /// What one costs, in cents.
    pub price_cents: i64,
    /// How many there are.
    pub stock: i64,
}

/// The columns that [`Product::from_row`] reads.
pub const COLUMNS: &str = "id, name, category, description, price_cents, stock";

impl Product {
    /// Reads a row of [`COLUMNS`].
    ///
    /// # Errors
    /// The row has others.
    pub fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            category: row.try_get(2)?,
            description: row.try_get(3)?,
            price_cents: row.try_get(4)?,
            stock: row.try_get(5)?,
        })
    }
}

/// Answers the product.
pub async fn get(
    State(shop): State<Arc<Shop>>,
    Extension(timing): Extension<ServerTiming>,
    Path(id): Path<i64>,
) -> Result<Response, ShopError> {
    let load = load(&shop, &timing, id);
    match shop.cache.get(id, &timing, load).await? {
        Some(product) => Ok(Json(&*product).into_response()),
        None => Err(ShopError::NotFound(format!("there is no product {id}"))),
    }
}

async fn load(shop: &Shop, timing: &ServerTiming, id: i64) -> Result<Option<Product>, ShopError> {
    let connection = shop.database.connection(timing).await?;
    let ask = async {
        let text = format!("SELECT {COLUMNS} FROM product WHERE id = $1");
        let statement = connection.prepare_cached(&text).await?;
        connection.query_opt(&statement, &[&id]).await
    };
    let row = timing.measure(Part::Database, ask).await?;
    Ok(row.as_ref().map(Product::from_row).transpose()?)
}
