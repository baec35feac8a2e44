//! `GET /api/products/{id}`: one product, from the cache if it has it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

use crate::error::ShopError;
use crate::json::Json;
use crate::product::{COLUMNS, Product};
use crate::server_timing::{Part, ServerTiming};
use crate::shop::Shop;

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
