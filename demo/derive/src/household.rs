//! `household_profile` and `household_activity`: who a household is, and what it bought of late.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{PROFILE_COLUMNS, Product, Products, Profile, Redemption, Sale, units};
use crate::table::{Table, count, dollars, dollars_per, ratio};
use crate::window::{AsOf, Micros};

/// Departments with a place of their own in `department_share`; one more place holds all others.
const DEPARTMENTS_NAMED: usize = 15;
const DEPARTMENT_PLACES: usize = DEPARTMENTS_NAMED + 1;

/// The demographics, all known since `known_since`.
pub fn profile(profiles: &BTreeMap<i64, Profile>, known_since: Micros) -> Table {
    let table = Table::new("household_profile")
        .key("household_id", profiles.keys().copied())
        .event_time(profiles.keys().map(|_| known_since));
    PROFILE_COLUMNS
        .iter()
        .enumerate()
        .fold(table, |table, (i, name)| table.text(name, profiles.values().map(|profile| profile.values[i].as_deref())))
}

/// The departments with the largest spend of the whole source, largest first; equals in the order of their names.
pub fn largest_departments<'a>(sales: &[Sale], products: &'a Products) -> Vec<&'a str> {
    let mut spend: BTreeMap<&str, i64> = BTreeMap::new();
    for sale in sales {
        if let Some(product) = products.get(&sale.product) {
            *spend.entry(&product.department).or_default() += sale.sales;
        }
    }
    let mut ranked: Vec<(&str, i64)> = spend.into_iter().collect();
    ranked.sort_by_key(|&(name, cents)| (-cents, name));
    ranked.into_iter().take(DEPARTMENTS_NAMED).map(|(name, _)| name).collect()
}

/// One row for every household that ever bought something.
pub fn activity(
    sales: &[Sale],
    redemptions: &[Redemption],
    products: &Products,
    departments: &[&str],
    as_of: AsOf,
) -> Table {
    let mut households: BTreeMap<i64, Activity<'_>> = BTreeMap::new();
    for sale in sales {
        let household = households.entry(sale.household).or_insert_with(|| Activity::new(sale.at));
        household.add(sale, products.get(&sale.product), as_of);
    }
    for redemption in redemptions.iter().filter(|r| as_of.within(28, r.day)) {
        if let Some(household) = households.get_mut(&redemption.household) {
            household.coupons_used_28d += 1;
        }
    }
    let rows = || households.values();
    Table::new("household_activity")
        .key("household_id", households.keys().copied())
        .event_time(rows().map(|h| h.last_visit))
        .float32("spend_7d", rows().map(|h| Some(dollars(h.spend_7d))))
        .float32("spend_28d", rows().map(|h| Some(dollars(h.spend_28d))))
        .float32("spend_84d", rows().map(|h| Some(dollars(h.spend_84d))))
        .int32("baskets_28d", rows().map(|h| count(h.baskets_28d.len())))
        .int32("baskets_84d", rows().map(|h| count(h.baskets_84d.len())))
        .int32("items_28d", rows().map(|h| i32::try_from(h.items_28d).expect("a household's items fit 32 bits")))
        .int32("distinct_products_28d", rows().map(|h| count(h.products_28d.len())))
        .float32("mean_basket_28d", rows().map(|h| dollars_per(h.spend_28d, h.baskets_28d.len() as i64)))
        .float32("discount_share_28d", rows().map(|h| ratio(h.discount_28d, h.shelf_value_28d)))
        .float32("private_share_28d", rows().map(|h| ratio(h.private_28d, h.spend_28d)))
        .int32("coupons_used_28d", rows().map(|h| h.coupons_used_28d))
        .int16("days_since_visit", rows().map(|h| h.days_since_visit(as_of)))
        .int64("usual_store_id", rows().map(Activity::usual_store))
        .text("top_department", rows().map(Activity::top_department))
        .array("department_share", rows().map(|h| h.department_share(departments)))
}

/// What one household did. Money in cents.
struct Activity<'a> {
    last_visit: Micros,
    spend_7d: i64,
    spend_28d: i64,
    spend_84d: i64,
    baskets_28d: BTreeSet<i64>,
    baskets_84d: BTreeSet<i64>,
    items_28d: i64,
    products_28d: BTreeSet<i64>,
    shelf_value_28d: i64,
    discount_28d: i64,
    private_28d: i64,
    coupons_used_28d: i32,
    /// Baskets of the year in each store.
    stores: BTreeMap<i64, BTreeSet<i64>>,
    /// Spend of the year by department; what the catalog does not know is under `None`.
    departments: BTreeMap<Option<&'a str>, i64>,
}

impl<'a> Activity<'a> {
    fn new(first_visit: Micros) -> Self {
        Self {
            last_visit: first_visit,
            spend_7d: 0,
            spend_28d: 0,
            spend_84d: 0,
            baskets_28d: BTreeSet::new(),
            baskets_84d: BTreeSet::new(),
            items_28d: 0,
            products_28d: BTreeSet::new(),
            shelf_value_28d: 0,
            discount_28d: 0,
            private_28d: 0,
            coupons_used_28d: 0,
            stores: BTreeMap::new(),
            departments: BTreeMap::new(),
        }
    }

    fn add(&mut self, sale: &Sale, product: Option<&'a Product>, as_of: AsOf) {
        self.last_visit = self.last_visit.max(sale.at);
        self.stores.entry(sale.store).or_default().insert(sale.basket);
        *self.departments.entry(product.map(|p| p.department.as_str())).or_default() += sale.sales;
        if as_of.within(84, sale.at) {
            self.spend_84d += sale.sales;
            self.baskets_84d.insert(sale.basket);
        }
        if as_of.within(28, sale.at) {
            self.spend_28d += sale.sales;
            self.baskets_28d.insert(sale.basket);
            self.items_28d += units(sale, product);
            self.products_28d.insert(sale.product);
            self.shelf_value_28d += sale.shelf_value();
            self.discount_28d += sale.discount();
            if product.is_some_and(Product::is_private) {
                self.private_28d += sale.sales;
            }
        }
        if as_of.within(7, sale.at) {
            self.spend_7d += sale.sales;
        }
    }

    fn days_since_visit(&self, as_of: AsOf) -> i16 {
        i16::try_from(as_of.whole_days_since(self.last_visit)).expect("the source covers one year")
    }

    /// The store of most baskets; of equals the smallest id.
    fn usual_store(&self) -> i64 {
        let most = self.stores.iter().max_by_key(|&(id, baskets)| (baskets.len(), -id));
        *most.expect("a household is known by its sales, and a sale has a store").0
    }

    /// The known department of largest spend; of equals the first by name. None if nothing was spent in any.
    fn top_department(&self) -> Option<&'a str> {
        let known = self.departments.iter().filter_map(|(name, &cents)| name.map(|name| (name, cents)));
        known.filter(|&(_, cents)| cents > 0).min_by_key(|&(name, cents)| (-cents, name)).map(|(name, _)| name)
    }

    fn department_share(&self, named: &[&str]) -> Option<[f32; DEPARTMENT_PLACES]> {
        let total: i64 = self.departments.values().sum();
        let mut places = [0_i64; DEPARTMENT_PLACES];
        for (department, cents) in &self.departments {
            let place = named.iter().position(|name| Some(*name) == *department);
            places[place.unwrap_or(DEPARTMENTS_NAMED)] += cents;
        }
        (total != 0).then(|| places.map(|cents| ratio(cents, total).expect("the total is not zero")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * 1_000_000;

    fn as_of() -> AsOf {
        AsOf(Micros(100 * 24 * HOUR))
    }

    fn sale(days_ago: i64, basket: i64, product: i64, cents: i64) -> Sale {
        Sale {
            household: 1,
            store: basket % 2,
            basket,
            product,
            quantity: 2,
            sales: cents,
            retail_disc: 0,
            coupon_disc: 0,
            coupon_match_disc: 0,
            week: 1,
            at: as_of().days_before(days_ago),
        }
    }

    fn product(department: &str) -> Product {
        Product {
            manufacturer: 1,
            department: department.into(),
            brand: "Private".into(),
            category: None,
            kind: None,
            package_size: None,
        }
    }

    #[test]
    fn each_window_counts_its_own_sales() {
        let meat = product("MEAT");
        let mut household = Activity::new(as_of().days_before(85));
        for sale in [sale(85, 1, 7, 1), sale(84, 2, 7, 10), sale(28, 3, 7, 100), sale(7, 3, 8, 1000)] {
            household.add(&sale, Some(&meat), as_of());
        }
        assert_eq!((household.spend_84d, household.spend_28d, household.spend_7d), (1110, 1100, 1000));
        assert_eq!((household.baskets_84d.len(), household.baskets_28d.len()), (2, 1));
        assert_eq!((household.items_28d, household.products_28d.len(), household.private_28d), (4, 2, 1100));
        assert_eq!(household.days_since_visit(as_of()), 7);
    }

    #[test]
    fn shares_sum_to_one_and_the_unknown_is_other() {
        let (meat, deli) = (product("MEAT"), product("DELI"));
        let mut household = Activity::new(as_of().days_before(9));
        household.add(&sale(9, 1, 1, 100), Some(&meat), as_of());
        household.add(&sale(9, 1, 2, 200), Some(&deli), as_of());
        household.add(&sale(9, 1, 3, 500), None, as_of());
        let share = household.department_share(&["DELI", "MEAT"]).expect("money was spent");
        assert_eq!((share[0], share[1], share[DEPARTMENTS_NAMED]), (0.25, 0.125, 0.625));
        assert_eq!(household.top_department(), Some("DELI"));
    }

    #[test]
    fn equal_stores_and_departments_are_settled_by_order() {
        let (meat, deli) = (product("MEAT"), product("DELI"));
        let mut household = Activity::new(as_of().days_before(9));
        household.add(&sale(9, 3, 1, 100), Some(&meat), as_of());
        household.add(&sale(9, 2, 2, 100), Some(&deli), as_of());
        assert_eq!(household.usual_store(), 0);
        assert_eq!(household.top_department(), Some("DELI"));
    }

    #[test]
    fn a_household_that_spent_nothing_has_no_shares() {
        let mut household = Activity::new(as_of().days_before(9));
        household.add(&sale(9, 1, 1, 0), None, as_of());
        assert_eq!(household.department_share(&["DELI"]), None);
        assert_eq!(household.top_department(), None);
    }
}
