//! A product, as the database has it and as clients get it.

use serde::Serialize;
use tokio_postgres::Row;

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
