//! Flash sales.

use expect_test::expect;

use super::tests::check;

#[test]
fn what_is_kept_of_a_sale_that_is_over_is_taken_from_free_pieces() {
    check(
        "receive r1 A 3
         sale A 2 1 1000 2000
         reserve o1:ann A 1
         now 2000
         reserve o1/2:ann@west A 1
         release o1/2",
        expect![[r#"
            receive r1 A 3 -> 
            sale A 2 1 1000 2000 -> 
            reserve o1:ann A 1 -> reserved
            now 2000 -> 
            reserve o1/2:ann@west A 1 -> reserved at main, alone: 
            release o1/2 -> 
            A: on hand 3 reserved 0 allocated 0
        "#]],
    );
}

#[test]
fn a_flash_sale_sells_what_is_set_aside_from_its_start_on_a_few_to_each_customer() {
    check(
        "receive r1 A 5
         sale A 3 2 2000 3000
         reserve o1 A 3
         reserve o2 A 2
         now 2000
         reserve o3 A 1
         reserve o4:ann A 1
         reserve o5:ann A 2
         reserve o6:bob A 2
         reserve o7:cyd A 1
         release o6
         reserve o7:cyd A 1
         reserve o6/2:bob A 1
         now 3000
         release o7
         reserve o8 A 1",
        expect![[r#"
            receive r1 A 5 -> 
            sale A 3 2 2000 3000 -> 
            reserve o1 A 3 -> refused: A wants 3 has 2 sold_out
            reserve o2 A 2 -> reserved
            now 2000 -> 
            reserve o3 A 1 -> refused: A wants 1 has 3 customer_limit
            reserve o4:ann A 1 -> reserved
            reserve o5:ann A 2 -> refused: A wants 2 has 2 customer_limit
            reserve o6:bob A 2 -> reserved
            reserve o7:cyd A 1 -> refused: A wants 1 has 0 held
            release o6 -> 
            reserve o7:cyd A 1 -> reserved
            reserve o6/2:bob A 1 -> reserved
            now 3000 -> 
            release o7 -> 
            reserve o8 A 1 -> reserved
            A: on hand 5 reserved 5 allocated 0
        "#]],
    );
}

#[test]
fn a_sale_does_not_sell_what_a_count_did_not_find() {
    check(
        "receive r1 A 4
         reserve o1 A 1
         sale A 3 0 1000 2000
         reserve o2 A 1
         reserve o3 A 1
         count c1 A 2
         release o3
         reserve o4 A 1
         receive r2 A 1
         release o2
         reserve o4 A 1
         reserve o5 A 1",
        expect![[r#"
            receive r1 A 4 -> 
            reserve o1 A 1 -> reserved
            sale A 3 0 1000 2000 -> 
            reserve o2 A 1 -> reserved
            reserve o3 A 1 -> reserved
            count c1 A 2 -> not done: 3 pieces are reserved and 0 allocated: the newest reservations are given up, dispatch or cancel what is allocated, then post the count again under a new key; refused: A wants 1 has 0 sold_out
            release o3 -> 
            reserve o4 A 1 -> refused: A wants 1 has 0 held
            receive r2 A 1 -> 
            release o2 -> 
            reserve o4 A 1 -> reserved
            reserve o5 A 1 -> reserved
            A: on hand 5 reserved 3 allocated 0 set aside 1 missing 2
        "#]],
    );
}

#[test]
fn a_warehouse_serves_alone_only_if_the_sale_is_there() {
    check(
        "receive r1 A 3
         receive r2 B 1
         receive r3 A@east 3
         receive r4 B@east 1
         sale A 2 0 1000 2000
         reserve o1:ann@east,main A 1
         reserve o2:bob@east,main A 1 B 1",
        expect![[r#"
            receive r1 A 3 -> 
            receive r2 B 1 -> 
            receive r3 A@east 3 -> 
            receive r4 B@east 1 -> 
            sale A 2 0 1000 2000 -> 
            reserve o1:ann@east,main A 1 -> reserved at main, alone: main
            reserve o2:bob@east,main A 1 B 1 -> reserved at main, alone: main
            A@east: on hand 3 reserved 0 allocated 0
            A: on hand 3 reserved 2 allocated 0
            B@east: on hand 1 reserved 0 allocated 0
            B: on hand 1 reserved 1 allocated 0
        "#]],
    );
}
