//! Several warehouses: which one serves, and one that goes offline.

use expect_test::expect;

use super::tests::check;

#[test]
fn one_warehouse_serves_all_lines_where_one_can_and_several_where_none_does() {
    check(
        "receive r1 A 5
         receive r2 B@east 5
         receive r3 A@east 2
         reserve o1@main,east A 2 B 2
         reserve o2@main,east A 1
         reserve o3@main,east A 3 B 3
         reserve o4@main,east A 2
         receive r4 A@east 1
         reserve o5@main,east A 3",
        expect![[r#"
            receive r1 A 5 -> 
            receive r2 B@east 5 -> 
            receive r3 A@east 2 -> 
            reserve o1@main,east A 2 B 2 -> reserved at east, alone: east
            reserve o2@main,east A 1 -> reserved at main, alone: main
            reserve o3@main,east A 3 B 3 -> reserved at east, alone: 
            reserve o4@main,east A 2 -> refused: A wants 2 has 1 held, main 1
            receive r4 A@east 1 -> 
            reserve o5@main,east A 3 -> refused: A wants 3 has 2 held, main 1, east 1
            A@east: on hand 3 reserved 2 allocated 0
            A: on hand 5 reserved 4 allocated 0
            B@east: on hand 5 reserved 5 allocated 0
        "#]],
    );
}

#[test]
fn a_line_is_split_over_warehouses_when_none_has_all_its_pieces() {
    check(
        "receive r1 A 2
         receive r2 A@east 2
         reserve o1@main,east A 3
         release o1
         allocate o1",
        expect![[r#"
            receive r1 A 2 -> 
            receive r2 A@east 2 -> 
            reserve o1@main,east A 3 -> reserved at main, alone: 
            release o1 -> 
            allocate o1 -> rejected: nothing is reserved that could be allocated
            A@east: on hand 2 reserved 0 allocated 0
            A: on hand 2 reserved 0 allocated 0
        "#]],
    );
}

#[test]
fn a_warehouse_that_goes_offline_offers_nothing_and_its_reservations_go_elsewhere() {
    check(
        "online main
         online east
         receive r1 A@east 4
         receive r2 A 2
         reserve o1@east,main A 1
         reserve o2@east,main A 2
         allocate o1
         reserve o3@east,main A 1
         offline east
         reserve o4@east,main A 1
         online east
         reserve o5@east,main A 1",
        expect![[r#"
            online main -> 
            online east -> 
            receive r1 A@east 4 -> 
            receive r2 A 2 -> 
            reserve o1@east,main A 1 -> reserved at east, alone: east main
            reserve o2@east,main A 2 -> reserved at east, alone: east main
            allocate o1 -> 
            reserve o3@east,main A 1 -> reserved at east, alone: east main
            offline east -> reserved at main, alone: ; refused: A wants 1 has 0 warehouse_offline
            reserve o4@east,main A 1 -> refused: A wants 1 has 0 held
            online east -> 
            reserve o5@east,main A 1 -> reserved at east, alone: east
            A@east: on hand 4 reserved 2 allocated 1
            A: on hand 2 reserved 2 allocated 0
        "#]],
    );
}

#[test]
fn a_later_attempt_replaces_what_is_held_or_keeps_it() {
    check(
        "receive r1 A 2
         receive r2 A@east 2
         reserve o1@main,east A 2
         reserve o1/2@east,main A 2
         reserve o2@east,main A 2
         reserve o1/3@west A 2",
        expect![[r#"
            receive r1 A 2 -> 
            receive r2 A@east 2 -> 
            reserve o1@main,east A 2 -> reserved at main, alone: main east
            reserve o1/2@east,main A 2 -> reserved at east, alone: east main
            reserve o2@east,main A 2 -> reserved at main, alone: main
            reserve o1/3@west A 2 -> reserved at east, alone: 
            A@east: on hand 2 reserved 2 allocated 0
            A: on hand 2 reserved 2 allocated 0
        "#]],
    );
}

/// The saga hears nothing of the refusal that its earlier attempt was told.
#[test]
fn a_later_attempt_does_not_keep_what_is_held_in_a_warehouse_that_is_offline() {
    check(
        "online main
         online east
         receive r1 A 1
         reserve o1@main,east A 1
         offline main
         reserve o1/2@east,main A 1
         release o1/2
         online main
         reserve o2@main,east A 1",
        expect![[r#"
            online main -> 
            online east -> 
            receive r1 A 1 -> 
            reserve o1@main,east A 1 -> reserved at main, alone: main
            offline main -> refused: A wants 1 has 0 warehouse_offline
            reserve o1/2@east,main A 1 -> refused: A wants 1 has 0 warehouse_offline
            release o1/2 -> 
            online main -> 
            reserve o2@main,east A 1 -> reserved at main, alone: main
            A: on hand 1 reserved 1 allocated 0
        "#]],
    );
}

/// Who has reserved where is read once and kept up from then on.
#[test]
fn the_second_time_a_warehouse_goes_offline_those_who_came_and_went_meanwhile_are_known() {
    check(
        "online main
         online east
         receive r1 A@east 5
         reserve o1@east A 1
         reserve o2@east A 1
         offline east
         release o1
         online east
         reserve o3@east A 2
         reserve o4@east A 1
         allocate o4
         offline east
         receive r2 A 4
         online east
         offline east
         online east
         offline main",
        expect![[r#"
            online main -> 
            online east -> 
            receive r1 A@east 5 -> 
            reserve o1@east A 1 -> reserved at east, alone: 
            reserve o2@east A 1 -> reserved at east, alone: 
            offline east -> refused: A wants 1 has 0 warehouse_offline; refused: A wants 1 has 0 warehouse_offline
            release o1 -> 
            online east -> 
            reserve o3@east A 2 -> reserved at east, alone: 
            reserve o4@east A 1 -> reserved at east, alone: 
            allocate o4 -> 
            offline east -> refused: A wants 1 has 0 warehouse_offline; refused: A wants 2 has 0 warehouse_offline
            receive r2 A 4 -> 
            online east -> 
            offline east -> reserved at main, alone: ; reserved at main, alone: 
            online east -> 
            offline main -> reserved at east, alone: ; reserved at east, alone: 
            A@east: on hand 5 reserved 3 allocated 1
            A: on hand 4 reserved 0 allocated 0
        "#]],
    );
}

/// `main` is everybody's, listed or not.
#[test]
fn a_reservation_goes_to_main_although_only_another_warehouse_is_listed() {
    check(
        "online east
         receive r1 A@east 1
         receive r2 A 1
         reserve o1@east,main A 1
         offline east",
        expect![[r#"
            online east -> 
            receive r1 A@east 1 -> 
            receive r2 A 1 -> 
            reserve o1@east,main A 1 -> reserved at east, alone: east main
            offline east -> reserved at main, alone: 
            A@east: on hand 1 reserved 0 allocated 0
            A: on hand 1 reserved 1 allocated 0
        "#]],
    );
}
