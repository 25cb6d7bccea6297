//! `product_catalog`, `product_activity` and `product_store_promo`: what a product is, how it sells, where it is shown.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::source::{Product, Products, Promotion, Sale, Source, units};
use crate::table::{Table, count, dollars, dollars_per, ratio};
use crate::window::{AsOf, Micros};

/// The whole catalog.
pub fn catalog(products: &Products) -> Table {
    let rows = || products.values();
    Table::new("product_catalog")
        .key("product_id", products.keys().copied())
        .int64("manufacturer_id", rows().map(|p| p.manufacturer))
        .text("department", rows().map(|p| Some(p.department.as_str())))
        .text("brand", rows().map(|p| Some(p.brand.as_str())))
        .text("product_category", rows().map(|p| p.category.as_deref()))
        .text("product_type", rows().map(|p| p.kind.as_deref()))
        .text("package_size", rows().map(|p| p.package_size.as_deref()))
}

/// One row for every product that was ever sold.
pub fn activity(sales: &[Sale], products: &Products, as_of: AsOf) -> Table {
    let mut sold: BTreeMap<i64, Activity> = BTreeMap::new();
    for sale in sales {
        let activity = sold.entry(sale.product).or_insert_with(|| Activity::new(sale.at));
        activity.add(sale, products.get(&sale.product), as_of);
    }
    let rows = || sold.values();
    let int32 = |n: i64| i32::try_from(n).expect("units of one product fit 32 bits");
    Table::new("product_activity")
        .key("product_id", sold.keys().copied())
        .event_time(rows().map(|p| p.last_sale))
        .int32("units_7d", rows().map(|p| int32(p.units_7d)))
        .int32("units_28d", rows().map(|p| int32(p.units_28d)))
        .int32("units_84d", rows().map(|p| int32(p.units_84d)))
        .float32("revenue_7d", rows().map(|p| Some(dollars(p.revenue_7d))))
        .float32("revenue_28d", rows().map(|p| Some(dollars(p.revenue_28d))))
        .float32("mean_price_28d", rows().map(|p| dollars_per(p.revenue_28d, p.units_28d)))
        .float32("last_price", rows().map(Activity::last_price))
        .float32("discount_rate_28d", rows().map(|p| ratio(p.discount_28d, p.shelf_value_28d)))
        .int32("buyers_28d", rows().map(|p| count(p.buyers_28d.len())))
        .int32("baskets_28d", rows().map(|p| count(p.baskets_28d.len())))
        .int32("stores_28d", rows().map(|p| count(p.stores_28d.len())))
}

/// The promotions of the newest week, which began at `week_start` and must be `week`.
pub fn promotions(source: &Source, week: i64, week_start: Micros) -> Result<Table> {
    let mut newest = NewestWeek::default();
    source.each_promotion(|promotion| newest.add(promotion))?;
    ensure!(newest.week == week, "promotions end in week {}, sales in week {week}", newest.week);
    let shown = &newest.shown;
    Ok(Table::new("product_store_promo")
        .key("product_id", shown.keys().map(|&(product, _)| product))
        .key("store_id", shown.keys().map(|&(_, store)| store))
        .event_time(shown.keys().map(|_| week_start))
        .text("display_location", shown.values().map(|(display, _)| Some(display.as_str())))
        .text("mailer_location", shown.values().map(|(_, mailer)| Some(mailer.as_str()))))
}

/// How one product sold. Money in cents.
struct Activity {
    last_sale: Micros,
    /// The newest sale with units: time, then basket and cents to settle equal times, then units.
    last_priced: Option<(Micros, i64, i64, i64)>,
    units_7d: i64,
    units_28d: i64,
    units_84d: i64,
    revenue_7d: i64,
    revenue_28d: i64,
    shelf_value_28d: i64,
    discount_28d: i64,
    buyers_28d: BTreeSet<i64>,
    baskets_28d: BTreeSet<i64>,
    stores_28d: BTreeSet<i64>,
}

impl Activity {
    fn new(first_sale: Micros) -> Self {
        Self {
            last_sale: first_sale,
            last_priced: None,
            units_7d: 0,
            units_28d: 0,
            units_84d: 0,
            revenue_7d: 0,
            revenue_28d: 0,
            shelf_value_28d: 0,
            discount_28d: 0,
            buyers_28d: BTreeSet::new(),
            baskets_28d: BTreeSet::new(),
            stores_28d: BTreeSet::new(),
        }
    }

    fn add(&mut self, sale: &Sale, product: Option<&Product>, as_of: AsOf) {
        let units = units(sale, product);
        self.last_sale = self.last_sale.max(sale.at);
        if units > 0 {
            self.last_priced = self.last_priced.max(Some((sale.at, sale.basket, sale.sales, units)));
        }
        if as_of.within(84, sale.at) {
            self.units_84d += units;
        }
        if as_of.within(28, sale.at) {
            self.units_28d += units;
            self.revenue_28d += sale.sales;
            self.shelf_value_28d += sale.shelf_value();
            self.discount_28d += sale.discount();
            self.buyers_28d.insert(sale.household);
            self.baskets_28d.insert(sale.basket);
            self.stores_28d.insert(sale.store);
        }
        if as_of.within(7, sale.at) {
            self.units_7d += units;
            self.revenue_7d += sale.sales;
        }
    }

    fn last_price(&self) -> Option<f32> {
        self.last_priced.and_then(|(_, _, cents, units)| dollars_per(cents, units))
    }
}

/// Keeps the promotions of the newest week seen, so that the large table passes through without being held.
#[derive(Default)]
struct NewestWeek {
    week: i64,
    /// Display and mailer location by product and store.
    shown: BTreeMap<(i64, i64), (String, String)>,
}

impl NewestWeek {
    /// Of several rows with one key the greatest codes win: `0` (not shown) yields to any place.
    fn add(&mut self, promotion: Promotion) {
        if promotion.week < self.week {
            return;
        }
        if promotion.week > self.week {
            self.week = promotion.week;
            self.shown.clear();
        }
        let place = (promotion.display, promotion.mailer);
        let shown = self.shown.entry((promotion.product, promotion.store)).or_insert_with(|| place.clone());
        if place > *shown {
            *shown = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_of() -> AsOf {
        AsOf(Micros(100 * 24 * 3600 * 1_000_000))
    }

    fn sale(days_ago: i64, basket: i64, quantity: i64, cents: i64) -> Sale {
        Sale {
            household: basket % 2,
            store: 1,
            basket,
            product: 1,
            quantity,
            sales: cents,
            retail_disc: cents,
            coupon_disc: 0,
            coupon_match_disc: 0,
            week: 1,
            at: as_of().days_before(days_ago),
        }
    }

    fn promotion(week: i64, display: &str) -> Promotion {
        Promotion { product: 1, store: 2, week, display: display.into(), mailer: "A".into() }
    }

    #[test]
    fn each_window_counts_its_own_sales() {
        let mut product = Activity::new(as_of().days_before(85));
        for sale in [sale(85, 1, 1, 1), sale(84, 2, 2, 10), sale(28, 3, 4, 100), sale(7, 5, 8, 1000)] {
            product.add(&sale, None, as_of());
        }
        assert_eq!((product.units_84d, product.units_28d, product.units_7d), (14, 12, 8));
        assert_eq!((product.revenue_28d, product.revenue_7d), (1100, 1000));
        assert_eq!((product.buyers_28d.len(), product.baskets_28d.len(), product.stores_28d.len()), (1, 2, 1));
        assert_eq!(ratio(product.discount_28d, product.shelf_value_28d), Some(0.5));
    }

    #[test]
    fn the_last_price_skips_sales_without_units_and_ignores_their_order() {
        let lines = [sale(3, 4, 0, 0), sale(5, 3, 2, 300), sale(5, 2, 1, 900)];
        let mut forward = Activity::new(lines[0].at);
        lines.iter().for_each(|sale| forward.add(sale, None, as_of()));
        let mut backward = Activity::new(lines[2].at);
        lines.iter().rev().for_each(|sale| backward.add(sale, None, as_of()));
        assert_eq!(forward.last_price(), Some(1.5));
        assert_eq!(backward.last_price(), Some(1.5));
        assert_eq!((forward.last_sale, backward.last_sale), (lines[0].at, lines[0].at));
    }

    #[test]
    fn a_newer_week_replaces_the_older_whatever_the_order() {
        for weeks in [[1, 2], [2, 1]] {
            let mut newest = NewestWeek::default();
            weeks.iter().for_each(|&week| newest.add(promotion(week, &week.to_string())));
            assert_eq!(newest.week, 2);
            assert_eq!(newest.shown[&(1, 2)].0, "2");
        }
    }

    #[test]
    fn a_place_wins_over_no_place() {
        for displays in [["0", "9"], ["9", "0"]] {
            let mut newest = NewestWeek::default();
            displays.iter().for_each(|display| newest.add(promotion(1, display)));
            assert_eq!(newest.shown[&(1, 2)].0, "9");
        }
    }
}
