//! The source's tables, read from Parquet in batches into plain rows; only the columns that features need.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, PrimitiveArray, RecordBatch, StringArray};
use arrow_cast::cast;
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::window::Micros;

/// Rows of one batch: small beside the tables, large enough that the cost of a batch does not count.
const BATCH_ROWS: usize = 64 * 1024;

/// The product type whose `quantity` is a volume (thousands for one filling of a tank), not a number of units.
const SOLD_BY_VOLUME: &str = "GASOLINE-REG UNLEADED";

/// The directory that holds the source's files.
pub struct Source {
    dir: PathBuf,
}

/// One line of a receipt. Money is in cents, so that sums do not depend on the order of rows.
#[derive(Clone, Debug)]
pub struct Sale {
    pub household: i64,
    pub store: i64,
    pub basket: i64,
    pub product: i64,
    /// Units as the source counts them; see [`Product::units`].
    pub quantity: i64,
    pub sales: i64,
    pub retail_disc: i64,
    pub coupon_disc: i64,
    pub coupon_match_disc: i64,
    pub week: i64,
    pub at: Micros,
}

impl Sale {
    /// What the line would have cost without any discount.
    pub fn shelf_value(&self) -> i64 {
        self.sales + self.retail_disc + self.coupon_match_disc
    }

    /// What the household saved. A maker's coupon counts up to the line's own value, so this never exceeds
    /// [`Sale::shelf_value`]: some coupons are worth more than the one line the till booked them to.
    pub fn discount(&self) -> i64 {
        self.retail_disc + self.coupon_match_disc + self.coupon_disc.min(self.sales)
    }
}

/// One row of the product catalog.
#[derive(Clone, Debug)]
pub struct Product {
    pub manufacturer: i64,
    pub department: String,
    pub brand: String,
    pub category: Option<String>,
    pub kind: Option<String>,
    pub package_size: Option<String>,
}

impl Product {
    /// Whether the shop's own brand.
    pub fn is_private(&self) -> bool {
        self.brand == "Private"
    }
}

/// The catalog by product id. Some products sold are not in it.
pub type Products = BTreeMap<i64, Product>;

/// Units of a sale: the source's quantity, but one for a line of fuel, whose quantity is a volume.
pub fn units(sale: &Sale, product: Option<&Product>) -> i64 {
    match product.and_then(|p| p.kind.as_deref()) {
        Some(SOLD_BY_VOLUME) => 1,
        _ => sale.quantity,
    }
}

/// Demographics of a household: nothing but text, and gaps.
#[derive(Clone, Debug)]
pub struct Profile {
    /// In the order of [`PROFILE_COLUMNS`].
    pub values: Vec<Option<String>>,
}

/// The columns of the source's table of demographics, besides the key.
pub const PROFILE_COLUMNS: [&str; 7] =
    ["age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count"];

/// A coupon a household redeemed.
#[derive(Clone, Copy, Debug)]
pub struct Redemption {
    pub household: i64,
    pub day: Micros,
}

/// Where a shop showed a product in one week.
#[derive(Clone, Debug)]
pub struct Promotion {
    pub product: i64,
    pub store: i64,
    pub week: i64,
    pub display: String,
    pub mailer: String,
}

impl Source {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// All lines of all receipts.
    pub fn sales(&self) -> Result<Vec<Sale>> {
        let mut sales = Vec::new();
        let columns = [
            "household_id",
            "store_id",
            "basket_id",
            "product_id",
            "quantity",
            "sales_value",
            "retail_disc",
            "coupon_disc",
            "coupon_match_disc",
            "week",
            "transaction_timestamp",
        ];
        self.scan("transactions", &columns, |batch| {
            let household = ints(batch, "household_id")?;
            let store = ints(batch, "store_id")?;
            let basket = ints(batch, "basket_id")?;
            let product = ints(batch, "product_id")?;
            let quantity = ints(batch, "quantity")?;
            let value = floats(batch, "sales_value")?;
            let retail_disc = floats(batch, "retail_disc")?;
            let coupon_disc = floats(batch, "coupon_disc")?;
            let coupon_match_disc = floats(batch, "coupon_match_disc")?;
            let week = ints(batch, "week")?;
            let at = instants(batch, "transaction_timestamp")?;
            for i in 0..batch.num_rows() {
                sales.push(Sale {
                    household: household.value(i),
                    store: store.value(i),
                    basket: basket.value(i),
                    product: product.value(i),
                    quantity: quantity.value(i),
                    sales: cents(value.value(i)),
                    retail_disc: cents(retail_disc.value(i)),
                    coupon_disc: cents(coupon_disc.value(i)),
                    coupon_match_disc: cents(coupon_match_disc.value(i)),
                    week: week.value(i),
                    at: Micros(at.value(i)),
                });
            }
            Ok(())
        })?;
        Ok(sales)
    }

    /// The catalog of products.
    pub fn products(&self) -> Result<Products> {
        let mut products = Products::new();
        let columns = [
            "product_id",
            "manufacturer_id",
            "department",
            "brand",
            "product_category",
            "product_type",
            "package_size",
        ];
        self.scan("products", &columns, |batch| {
            let id = ints(batch, "product_id")?;
            let manufacturer = ints(batch, "manufacturer_id")?;
            let department = texts(batch, "department")?;
            let brand = texts(batch, "brand")?;
            let category = texts(batch, "product_category")?;
            let kind = texts(batch, "product_type")?;
            let package_size = texts(batch, "package_size")?;
            for i in 0..batch.num_rows() {
                let product = Product {
                    manufacturer: manufacturer.value(i),
                    department: department.value(i).to_owned(),
                    brand: brand.value(i).to_owned(),
                    category: text(&category, i),
                    kind: text(&kind, i),
                    package_size: text(&package_size, i),
                };
                let before = products.insert(id.value(i), product);
                ensure!(before.is_none(), "product {} appears twice in the catalog", id.value(i));
            }
            Ok(())
        })?;
        Ok(products)
    }

    /// The demographics by household id.
    pub fn profiles(&self) -> Result<BTreeMap<i64, Profile>> {
        let mut profiles = BTreeMap::new();
        let columns: Vec<&str> = ["household_id"].into_iter().chain(PROFILE_COLUMNS).collect();
        self.scan("demographics", &columns, |batch| {
            let id = ints(batch, "household_id")?;
            let values = PROFILE_COLUMNS.iter().map(|c| texts(batch, c)).collect::<Result<Vec<_>>>()?;
            for i in 0..batch.num_rows() {
                let profile = Profile { values: values.iter().map(|column| text(column, i)).collect() };
                let before = profiles.insert(id.value(i), profile);
                ensure!(before.is_none(), "household {} appears twice in the demographics", id.value(i));
            }
            Ok(())
        })?;
        Ok(profiles)
    }

    /// All coupons redeemed.
    pub fn redemptions(&self) -> Result<Vec<Redemption>> {
        let mut redemptions = Vec::new();
        self.scan("coupon_redemptions", &["household_id", "redemption_date"], |batch| {
            let household = ints(batch, "household_id")?;
            let date = instants(batch, "redemption_date")?;
            for i in 0..batch.num_rows() {
                let day = Micros::of_store_date(Micros(date.value(i)));
                redemptions.push(Redemption { household: household.value(i), day });
            }
            Ok(())
        })?;
        Ok(redemptions)
    }

    /// Hands over the promotions one by one: the table is too large to hold.
    pub fn each_promotion(&self, mut take: impl FnMut(Promotion)) -> Result<()> {
        let columns = ["product_id", "store_id", "display_location", "mailer_location", "week"];
        self.scan("promotions", &columns, |batch| {
            let product = ints(batch, "product_id")?;
            let store = ints(batch, "store_id")?;
            let week = ints(batch, "week")?;
            let display = texts(batch, "display_location")?;
            let mailer = texts(batch, "mailer_location")?;
            ensure!(display.null_count() + mailer.null_count() == 0, "a promotion without a location");
            for i in 0..batch.num_rows() {
                take(Promotion {
                    product: product.value(i),
                    store: store.value(i),
                    week: week.value(i),
                    display: display.value(i).to_owned(),
                    mailer: mailer.value(i).to_owned(),
                });
            }
            Ok(())
        })
    }

    /// Reads the named columns of a table batch by batch.
    fn scan(&self, table: &str, columns: &[&str], mut take: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let path = self.dir.join(format!("{table}.parquet"));
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        for batch in builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
            take(&batch?).with_context(|| format!("read {}", path.display()))?;
        }
        Ok(())
    }
}

/// Dollars to the nearest cent; the source's values are whole cents written as floats.
fn cents(dollars: f64) -> i64 {
    (dollars * 100.0).round() as i64
}

fn column(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef> {
    let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
    cast(column, to).with_context(|| format!("column {name} as {to}"))
}

/// A column of numbers, which must have no gaps.
fn whole(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef> {
    let column = column(batch, name, to)?;
    ensure!(column.null_count() == 0, "column {name} has {} nulls, expected none", column.null_count());
    Ok(column)
}

fn ints(batch: &RecordBatch, name: &str) -> Result<Int64Array> {
    Ok(whole(batch, name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn floats(batch: &RecordBatch, name: &str) -> Result<Float64Array> {
    Ok(whole(batch, name, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

fn instants(batch: &RecordBatch, name: &str) -> Result<PrimitiveArray<TimestampMicrosecondType>> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    Ok(whole(batch, name, &micros)?.as_primitive::<TimestampMicrosecondType>().clone())
}

fn texts(batch: &RecordBatch, name: &str) -> Result<StringArray> {
    Ok(column(batch, name, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn text(column: &StringArray, i: usize) -> Option<String> {
    column.is_valid(i).then(|| column.value(i).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale() -> Sale {
        Sale {
            household: 1,
            store: 1,
            basket: 1,
            product: 1,
            quantity: 12_510,
            sales: 300,
            retail_disc: 100,
            coupon_disc: 50,
            coupon_match_disc: 25,
            week: 1,
            at: Micros(0),
        }
    }

    #[test]
    fn a_coupon_worth_more_than_its_line_saves_no_more_than_the_line() {
        let plain = sale();
        assert_eq!((plain.shelf_value(), plain.discount()), (425, 175));
        let large = Sale { coupon_disc: 1000, ..sale() };
        assert_eq!(large.discount(), large.shelf_value());
    }

    #[test]
    fn a_tank_of_fuel_is_one_unit() {
        let mut product = Product {
            manufacturer: 1,
            department: "FUEL".into(),
            brand: "National".into(),
            category: None,
            kind: Some(SOLD_BY_VOLUME.into()),
            package_size: None,
        };
        assert_eq!(units(&sale(), Some(&product)), 1);
        product.kind = None;
        assert_eq!(units(&sale(), Some(&product)), 12_510);
        assert_eq!(units(&sale(), None), 12_510);
    }

    #[test]
    fn dollars_written_as_floats_become_their_cents() {
        assert_eq!(cents(1.15), 115);
        assert_eq!(cents(0.29), 29);
        assert_eq!(cents(840.0), 84_000);
    }
}
