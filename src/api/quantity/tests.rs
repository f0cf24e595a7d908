use proptest::prelude::*;

use super::{Format, ParseQuantityError, Quantity};

fn check(text: &str, canonical: &str) {
    let quantity = Quantity::parse(text).unwrap();
    assert_eq!(quantity.to_string(), canonical, "{text}");
    assert_eq!(Quantity::parse(canonical).unwrap(), quantity, "{text} keeps its value");
}

#[test]
fn the_canonical_form_is_upstreams() {
    for (text, canonical) in [
        ("0", "0"),
        ("0Gi", "0"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1.", "1"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1500Mi", "1500Mi"),
        ("0.5Mi", "512Ki"),
        ("0.1Ki", "102400m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1000m", "1"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e2", "1200"),
        ("100e-3", "100e-3"),
        ("1E", "1E"),
        ("-100m", "-100m"),
        ("+1", "1"),
        ("1.0000000001", "1000000001n"),
        ("0.0000000001", "1n"),
        ("0.00000000000000000000000000001", "1n"),
        ("1Ei", "1Ei"),
        ("8Ei", "9223372036854775807"),
        ("1e100", "9223372036854775807e0"),
        ("512Ki", "512Ki"),
        ("100000000000000000000000000000000000000000000n", "9223372036854775807"),
    ] {
        let canonical = canonical.strip_suffix("e0").unwrap_or(canonical);
        check(text, canonical);
    }
}

#[test]
fn text_that_is_no_quantity_is_refused_in_upstreams_words() {
    for text in ["", ".", "-", "1..2", "abc", "1 ", "1,5", "ä"] {
        assert_eq!(Quantity::parse(text), Err(ParseQuantityError::Format), "{text:?}");
    }
    for text in ["1KiB", "1mm", "1e", "1ee2"] {
        assert!(Quantity::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn values_round_up() {
    assert_eq!(Quantity::parse("1500m").unwrap().value(), 2);
    assert_eq!(Quantity::parse("100u").unwrap().milli_value(), 1);
    assert_eq!(Quantity::parse("2Gi").unwrap().value(), 2 << 30);
    assert_eq!(Quantity::parse("2").unwrap().milli_value(), 2000);
    assert_eq!(Quantity::parse("9E").unwrap().milli_value(), i64::MAX);
}

fn quantities() -> impl Strategy<Value = Quantity> {
    (any::<i64>(), 0..3u8).prop_map(|(amount, kind)| match kind {
        0 => Quantity::from_milli(amount),
        1 => Quantity::from_bytes(amount),
        _ => Quantity::from_whole(amount),
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[-+]?[0-9.]{0,50}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,12}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            let canonical = quantity.to_string();
            let again = Quantity::parse(&canonical).unwrap();
            prop_assert_eq!(again, quantity);
            prop_assert_eq!(again.to_string(), canonical);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".*") {
        let _ = Quantity::parse(&text);
    }

    #[test]
    fn sums_commute_and_order_is_kept(a in quantities(), b in quantities()) {
        prop_assert_eq!(a.plus(b), b.plus(a));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        if a.value().checked_abs().is_some_and(|v| v < i64::MAX / 4) && b.value().checked_abs().is_some_and(|v| v < i64::MAX / 4) {
            prop_assert_eq!(a.plus(b).minus(b), a);
            prop_assert_eq!(a < b, b.minus(a) > Quantity::ZERO);
        }
    }

    #[test]
    fn whole_numbers_come_back(amount in any::<i64>()) {
        prop_assume!(amount > i64::MIN);
        prop_assert_eq!(Quantity::from_bytes(amount).value(), amount);
        prop_assert_eq!(Quantity::parse(&amount.to_string()).unwrap().value(), amount);
        prop_assert_eq!(Quantity::parse(&Quantity::from_bytes(amount).to_string()).unwrap().value(), amount);
    }
}

#[test]
fn the_family_is_kept_except_below_one() {
    assert_eq!(Quantity::parse("1Ki").unwrap().format(), Format::BinarySi);
    assert_eq!(Quantity::parse("0.0001Ki").unwrap().format(), Format::DecimalSi);
}
