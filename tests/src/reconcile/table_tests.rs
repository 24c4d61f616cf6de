use expect_test::expect;

use super::*;

const FILE: usize = 0;
const API: usize = 1;
const TOPIC: usize = 2;
const POSTGRES: usize = 3;
const PROVIDERS: usize = 5;

fn columns() -> [Column; WIDTH] {
    let mut columns: [Column; WIDTH] = Default::default();
    for (index, column) in columns[..PROVIDERS].iter_mut().enumerate() {
        column.set(ORDERS, 12_345);
        column.set(MONEY, 76_990_574);
        if index > API {
            column.add_status("routed", 12_000, 24_000, 70_000_000);
            column.add_status("rejected", 345, 700, 6_990_574);
        }
    }
    columns[FILE].set(REPEATS, 620);
    columns[API].set(REPEATS, 330);
    columns[TOPIC].set(REPEATS, 290);
    columns[POSTGRES].set(REPEATS, 290);
    columns[FILE].add_refused("quantity");
    columns[API].add_refused("quantity");
    for index in [TOPIC, POSTGRES, PROVIDERS] {
        columns[index].set(CAPTURED, 1_234_567);
    }
    columns
}

fn wrong(table: &Table) -> Vec<&str> {
    let known = |row: &&Row| row.cells.iter().flatten().count() > 0;
    table.rows.iter().filter(known).filter(|r| !r.agrees).map(|r| r.key.as_str()).collect()
}

#[test]
fn columns_that_say_the_same_agree() {
    let table = Table::new(&columns(), 0);
    assert_eq!(wrong(&table), Vec::<&str>::new());
    let known: String = table
        .text()
        .lines()
        .filter(|line| !line.ends_with("DIFFERS"))
        .collect::<Vec<_>>()
        .join("\n");
    expect![[r#"
                                              file    HTTP API  orders topic    Postgres  ClickHouse  providers
        orders                              12,345      12,345        12,345      12,345      12,345          –       ok
        money, GBP                      769,905.74  769,905.74    769,905.74  769,905.74  769,905.74          –       ok
          routed: orders                         –           –        12,000      12,000      12,000          –       ok
          routed: lines                          –           –        24,000      24,000      24,000          –       ok
          routed: money, GBP                     –           –    700,000.00  700,000.00  700,000.00          –       ok
          rejected: orders                       –           –           345         345         345          –       ok
          rejected: lines                        –           –           700         700         700          –       ok
          rejected: money, GBP                   –           –     69,905.74   69,905.74   69,905.74          –       ok
        clicks beyond the first                620         330           290         290           –          –       ok
        refused: quantity                        1           1             –           –           –          –       ok
        payments: captured, GBP                  –           –     12,345.67   12,345.67           –  12,345.67       ok

        orders topic: rows by status come from order-status, stock from stock-levels
        clicks beyond the first: in the file = answered at the door (HTTP API) + recorded again
        (orders topic), and each of these is known to Postgres as a duplicate
        payments: the log tells them one by one, API and databases whole orders; providers = their own ledger"#]]
    .assert_eq(&known);
}

#[test]
fn a_difference_in_any_cell_is_found() {
    for (column, key) in [
        (FILE, ORDERS.to_owned()),
        (4, MONEY.to_owned()),
        (POSTGRES, format!("{STATUS}routed.{ORDERS}")),
        (TOPIC, format!("{STATUS}received.{ORDERS}")),
        (API, format!("{REFUSED}price")),
        (POSTGRES, REPEATS.to_owned()),
        (API, REPEATS.to_owned()),
        (PROVIDERS, CAPTURED.to_owned()),
    ] {
        let mut columns = columns();
        columns[column].add(key.clone(), 1);
        let table = Table::new(&columns, 0);
        assert_eq!(wrong(&table), [key.as_str()], "column {column}");
        assert!(!table.agrees());
    }
}

#[test]
fn a_row_that_one_column_alone_knows_is_not_agreed() {
    let mut columns = columns();
    columns[TOPIC].set(STOCK_RECEIVED, 5);
    assert_eq!(wrong(&Table::new(&columns, 0)), [STOCK_RECEIVED]);
}

#[test]
fn an_unknown_outcome_may_add_a_click() {
    let mut columns = columns();
    columns[TOPIC].add(REPEATS, 1);
    columns[POSTGRES].add(REPEATS, 1);
    assert_eq!(wrong(&Table::new(&columns, 0)), [REPEATS]);
    assert_eq!(wrong(&Table::new(&columns, 1)), Vec::<&str>::new());
    columns[FILE].add(REPEATS, 2);
    assert_eq!(wrong(&Table::new(&columns, 1)), [REPEATS], "fewer than the file has were lost");
}
