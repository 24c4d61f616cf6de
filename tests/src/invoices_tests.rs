use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

const HEADER: &str =
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

fn read(lines: &str) -> Vec<Invoice> {
    let text = format!("{HEADER}{lines}");
    Invoices::read(Box::new(std::io::Cursor::new(text)))
        .unwrap()
        .collect::<Result<Vec<_>>>()
        .unwrap()
}

fn reasons(line: &str) -> String {
    reason(&read(line)[0].faults())
}

#[test]
fn prices_are_exact_minor_units() {
    for (text, expected) in [
        ("2.55", Field::Good(255)),
        ("2.5", Field::Good(250)),
        ("2", Field::Good(200)),
        ("0.10", Field::Good(10)),
        ("0.290000", Field::Good(29)),
        ("-11062.06", Field::Good(-1_106_206)),
        ("-0.01", Field::Good(-1)),
        ("90071992547409.93", Field::Good(9_007_199_254_740_993)),
        ("0.001", Field::Bad("0.001".into())),
        ("", Field::Bad(String::new())),
        ("2,55", Field::Bad("2,55".into())),
        (".5", Field::Bad(".5".into())),
        ("1e3", Field::Bad("1e3".into())),
        ("99999999999999999999", Field::Bad("99999999999999999999".into())),
    ] {
        assert_eq!(minor_units(text.to_owned()), expected, "{text}");
    }
}

#[test]
fn consecutive_lines_of_a_number_are_an_invoice() {
    let invoices = read(
        "1,A,,2,2010-12-01T08:26:00Z,2.55,17850,United Kingdom\n\
         1,B,,1,2010-12-01T08:27:00Z,0.10,17850,United Kingdom\n\
         2,A,,1,2010-12-01T08:28:00Z,1.00,\\N,EIRE\n\
         1,C,,1,2010-12-01T08:29:00Z,1.00,,Atlantis\n",
    );
    let keys: Vec<&str> = invoices.iter().map(|i| i.key.as_str()).collect();
    assert_eq!(keys, ["1", "2", "1/2"]);
    assert_eq!(invoices[0].total_minor(), 520);
    let request = invoices[0].request();
    assert_eq!(request["ordered_at"], "2010-12-01T08:26:00Z");
    assert_eq!(request["customer_id"], "17850");
    assert_eq!(request["lines"][1], json!({"sku": "B", "quantity": 1, "unit_price_minor": 10}));
    assert_eq!(request["attributes"]["invoice"], "1");
    assert!(invoices[1].request()["customer_id"].is_null(), "\\N is a guest");
    assert_eq!(invoices[1].request()["destination"]["country"], "IE");
    assert_eq!(invoices[2].request()["destination"]["country"], "ZZ");
}

#[test]
fn faults_are_found_and_sent_as_they_are() {
    let at = "2010-12-01T08:26:00Z";
    assert_eq!(reasons(&format!("1,A,,1,{at},2.55,1,France")), "");
    assert_eq!(reasons(&format!("C1,A,,-1,{at},2.55,1,France")), "quantity");
    assert_eq!(reasons(&format!("1,A,,1,{at},0.00,1,France")), "price");
    assert_eq!(reasons(&format!("1,A,,-3,{at},-0.01,1,France")), "quantity + price");
    assert_eq!(reasons(&format!("1,A,,1.5,{at},1,1,France")), "quantity");
    assert_eq!(reasons(&format!("1,A,,3000000000,{at},1,1,France")), "quantity");
    assert_eq!(reasons(&format!("1,A,,1,{at},0.125,1,France")), "price");
    assert_eq!(reasons(&format!("1,A/B,,1,{at},1,1,France")), "SKU");
    assert_eq!(reasons("1,A,,1,yesterday,1,1,France"), "date");
    assert_eq!(reasons("1,A,,1,12/1/2010 8:26,1,1,France"), "");
    let long = format!("1,A,,1,{at},1,1,France\n").repeat(MOST_LINES + 1);
    assert_eq!(reasons(&long), "number of lines");
    let late =
        format!("{}1,A,,1,{at},0,1,France\n", format!("1,A,,0,{at},1,1,France\n").repeat(100));
    assert_eq!(reasons(&late), "quantity", "the hundred and first fault is not listed");
    let request = read(&format!("1,A,,-1,{at},half,1,France"))[0].request();
    assert_eq!(request["lines"][0], json!({"sku":"A","quantity":-1,"unit_price_minor":"half"}));
}

#[test]
fn a_missing_column_is_named() {
    let error = Invoices::read(Box::new(&b"InvoiceNo,StockCode\n"[..])).err().unwrap();
    assert_eq!(error.to_string(), "there is no column Quantity");
}

/// The figures that the data's README promises, counted by this reader.
#[test]
fn the_shipped_file_is_what_its_readme_says() {
    let file = PathBuf::from("data/online-retail-2010-12.csv.gz");
    let mut by_reason = BTreeMap::<String, u64>::new();
    let (mut orders, mut lines, mut total, mut longest) = (0, 0, 0, 0);
    let mut skus = BTreeSet::new();
    for invoice in Invoices::open(&file).unwrap() {
        let invoice = invoice.unwrap();
        longest = longest.max(invoice.lines.len());
        let faults = invoice.faults();
        if !faults.is_empty() {
            *by_reason.entry(reason(&faults)).or_default() += 1;
            continue;
        }
        orders += 1;
        lines += invoice.lines.len();
        total += invoice.total_minor();
        skus.extend(invoice.lines.into_iter().map(|line| line.sku));
        assert_ne!(countries::iso(&invoice.country), "ZZ", "{}", invoice.country);
    }
    assert_eq!((orders, lines, skus.len(), longest), (1550, 40_281, 2775, 675));
    assert_eq!(total, TOTAL_MINOR);
    let expected = [("price", 79), ("quantity", 326), ("quantity + price", 70)];
    assert_eq!(by_reason, expected.map(|(r, n)| (r.to_owned(), n)).into());
}

/// Counted with another program: sum of quantity × price over the valid invoices.
const TOTAL_MINOR: i64 = 76_990_574;
