//! Derives the demo's feature files from the public retail data: same input, same bytes.
//!
//! It knows the source's tables and nothing of Stoa; the demo's loader reads what it leaves in `demo/data`. Start
//! reading at [`derive`]. The rules of all columns are in [`SOURCE.template.md`](./SOURCE.template.md), which becomes
//! `SOURCE.md` beside the files.

mod household;
mod product;
mod source;
mod table;
mod window;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use arrow_array::TimestampMicrosecondArray;
use arrow_cast::display::array_value_to_string;
use clap::Parser;

use crate::source::{Sale, Source};
use crate::table::Written;
use crate::window::{AsOf, Micros};

/// Derives the demo's features from the public retail data.
#[derive(Parser)]
struct Args {
    /// Directory of the source: transactions.parquet, products.parquet, demographics.parquet,
    /// coupon_redemptions.parquet and promotions.parquet.
    #[arg(long)]
    from: PathBuf,
    /// Directory to write to; files of the same names are replaced.
    #[arg(long)]
    to: PathBuf,
}

/// What a clone of the repository may cost for the demo's data.
const BYTES_MAX: u64 = 8_000_000;

fn main() -> Result<()> {
    let args = Args::parse();
    derive(&args.from, &args.to)
}

fn derive(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    let source = Source::new(from);
    let sales = source.sales()?;
    let products = source.products()?;
    let year = Year::of(&sales)?;
    let departments = household::largest_departments(&sales, &products);

    let written = [
        household::profile(&source.profiles()?, year.start).write(to)?,
        household::activity(&sales, &source.redemptions()?, &products, &departments, year.as_of).write(to)?,
        product::catalog(&products).write(to)?,
        product::activity(&sales, &products, year.as_of).write(to)?,
        product::promotions(&source, year.last_week, year.last_week_start)?.write(to)?,
    ];

    let files = listing(&written);
    let text = include_str!("SOURCE.template.md")
        .replace("{files}", &files)
        .replace("{departments}", &departments.join(", "))
        .replace("{start}", &utc(year.start)?)
        .replace("{as_of}", &utc(year.as_of.0)?)
        .replace("{last_week}", &year.last_week.to_string())
        .replace("{last_week_start}", &utc(year.last_week_start)?);
    std::fs::write(to.join("SOURCE.md"), text)?;
    println!("{files}");
    let bytes: u64 = written.iter().map(|file| file.bytes).sum();
    ensure!(bytes <= BYTES_MAX, "{bytes} bytes of features, at most {BYTES_MAX} are wanted in the repository");
    Ok(())
}

/// The span of time the source covers.
struct Year {
    start: Micros,
    as_of: AsOf,
    last_week: i64,
    last_week_start: Micros,
}

impl Year {
    fn of(sales: &[Sale]) -> Result<Self> {
        let first = sales.iter().map(|sale| sale.at).min().context("the source has no sales")?;
        let last = sales.iter().max_by_key(|sale| sale.at).context("the source has no sales")?;
        let as_of = AsOf::after(last.at);
        let last_week_start = as_of.days_before(7);
        // The source's weeks are only numbered. That the last one is full, and where it begins, its sales must show.
        for sale in sales {
            let in_last_week = sale.at >= last_week_start;
            ensure!(
                in_last_week == (sale.week == last.week),
                "a sale of week {} lies at {:?}, but the last week ({}) is the last 7 days",
                sale.week,
                sale.at,
                last.week
            );
        }
        Ok(Self { start: first.store_day_start(), as_of, last_week: last.week, last_week_start })
    }
}

/// The files as rows of a Markdown table.
fn listing(written: &[Written]) -> String {
    let rows: Vec<String> =
        written.iter().map(|file| format!("| {}.parquet | {} | {} |", file.name, file.rows, file.bytes)).collect();
    rows.join("\n")
}

fn utc(at: Micros) -> Result<String> {
    let array = TimestampMicrosecondArray::from(vec![at.0]);
    Ok(format!("{}Z", array_value_to_string(&array, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600 * 1_000_000;

    fn sale(day: i64, week: i64) -> Sale {
        Sale {
            household: 1,
            store: 1,
            basket: 1,
            product: 1,
            quantity: 1,
            sales: 100,
            retail_disc: 0,
            coupon_disc: 0,
            coupon_match_disc: 0,
            week,
            at: Micros(day * DAY + DAY / 2),
        }
    }

    #[test]
    fn the_last_week_is_the_last_seven_days() {
        let year = Year::of(&[sale(0, 1), sale(13, 1), sale(14, 2), sale(20, 2)]).expect("whole weeks");
        assert_eq!(year.last_week_start, Micros(14 * DAY + DAY / 2).store_day_start());
        assert_eq!(year.last_week, 2);
    }

    #[test]
    fn a_week_that_is_not_the_last_seven_days_is_refused() {
        assert!(Year::of(&[sale(13, 2), sale(14, 2), sale(20, 2)]).is_err());
        assert!(Year::of(&[sale(14, 1), sale(20, 2)]).is_err());
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(utc(Micros(0)).expect("a valid time"), "1970-01-01T00:00:00Z");
    }
}
