//! Every record type survives its bytes; foreign versions resolve; hostile bytes only err.

use super::*;
use crate::*;
use uuid::Uuid;

fn order() -> OrderPlaced {
    let merchant = Merchant::parse("shop").unwrap();
    OrderPlaced {
        order_id: OrderId::derive(&merchant, "k1"),
        merchant,
        idempotency_key: "k1".into(),
        fingerprint: Fingerprint(Uuid::from_u128(7)),
        customer_id: Some("17850".into()),
        currency: Currency::parse("GBP").unwrap(),
        destination: destination(),
        lines: vec![OrderLine {
            line: 1,
            sku: Sku::parse("85123A").unwrap(),
            quantity: 6,
            unit_price_minor: 255,
        }],
        total_minor: 1530,
        ordered_at: Millis(1_291_191_960_000),
        attributes: [("gift".into(), "yes".into())].into(),
        confirm_within_ms: 900_000,
        payment_methods: Some(vec![PaymentMethod {
            provider: ProviderCode::parse("stripe").unwrap(),
            token: "pm_1".into(),
            amount_minor: 1530,
        }]),
    }
}

fn destination() -> Destination {
    Destination {
        name: "A. Buyer".into(),
        street: "1 High Street".into(),
        city: "Leeds".into(),
        postcode: "LS1".into(),
        country: "GB".into(),
    }
}

fn consignment() -> Consignment {
    Consignment {
        courier: CourierCode::parse("swift").unwrap(),
        consignment_id: "swift-1".into(),
        tracking_number: "T1".into(),
        price_minor: 450,
        currency: "GBP".into(),
        promised_at: Millis(9),
        attempt: 2,
        expected_by: Millis(8),
    }
}

fn refusal() -> LineRefusal {
    LineRefusal {
        line: 1,
        sku: Sku::parse("A").unwrap(),
        requested: 3,
        available: 1,
        reason: RefusalReason::Held,
        elsewhere: vec![Alternative { warehouse: WarehouseCode::MAIN, available: 1 }],
    }
}

/// One plausible record of every type.
fn samples() -> Vec<Record> {
    let placed = order();
    let (order_id, merchant) = (placed.order_id, placed.merchant.clone());
    let accepted_at = Millis(1_800_000_000_000);
    let sku = Sku::parse("85123A").unwrap();
    let warehouse = WarehouseCode::parse("main").unwrap();
    let lane = Lane::new(&warehouse, "GB");
    let courier = CourierCode::parse("swift").unwrap();
    let gbp = Currency::parse("GBP").unwrap();
    let provider = ProviderCode::parse("stripe").unwrap();
    vec![
        placed.clone().into(),
        OrderRepeated {
            order_id,
            accepted_at,
            merchant: merchant.clone(),
            kind: RepeatKind::Conflict,
            fingerprint: placed.fingerprint,
            repeated_at: Millis(3),
            source_partition: 2,
            source_offset: 99,
        }
        .into(),
        ReserveLines {
            order_id,
            accepted_at,
            merchant: merchant.clone(),
            attempt: 1,
            warehouses: vec![warehouse.clone()],
            lines: vec![ReserveLine { line: 1, sku: sku.clone(), quantity: 6 }],
            customer_id: Some("17850".into()),
        }
        .into(),
        ReleaseLines { order_id, accepted_at, merchant: merchant.clone(), attempt: 1 }.into(),
        AllocateLines { order_id, accepted_at, merchant: merchant.clone(), attempt: 1 }.into(),
        StockReceived {
            receipt_id: ReceiptId::derive(&merchant, "r1"),
            merchant: merchant.clone(),
            warehouse: warehouse.clone(),
            sku: sku.clone(),
            quantity: 10,
            fingerprint: Some(placed.fingerprint),
            reason: "purchase order 4711".into(),
            requested_by: "k1".into(),
        }
        .into(),
        LinesReserved {
            order_id,
            accepted_at,
            stock_partition: 3,
            attempt: 1,
            warehouse: Some(warehouse.clone()),
            alone: vec![warehouse.clone()],
            moved_from: Some(warehouse.clone()),
        }
        .into(),
        LinesRefused {
            order_id,
            accepted_at,
            stock_partition: 3,
            attempt: 1,
            refusals: vec![refusal()],
        }
        .into(),
        CourierListed {
            courier: courier.clone(),
            url: "http://couriers/swift".into(),
            price_minor: 450,
            currency: gbp.clone(),
            timeout_ms: 1000,
            paused: false,
        }
        .into(),
        BookConsignment {
            order_id,
            accepted_at,
            merchant: merchant.clone(),
            lane: lane.clone(),
            destination: destination(),
        }
        .into(),
        CourierAnswered {
            order_id,
            accepted_at,
            lane: lane.clone(),
            attempt: 1,
            courier: courier.clone(),
            call: CourierCall::Book,
            outcome: CallOutcome::TimedOut,
            detail: "no answer in 1000 ms".into(),
            latency_ms: 1000,
            consignment_id: "".into(),
            tracking_number: "".into(),
            price_minor: 0,
            currency: "".into(),
            promised_at: Millis(0),
        }
        .into(),
        ConsignmentBooked { order_id, accepted_at, consignment: consignment() }.into(),
        ConsignmentFailed { order_id, accepted_at, detail: "all refused".into() }.into(),
        CourierRuled {
            courier: courier.clone(),
            lane: lane.as_str().into(),
            paused: true,
            weight_percent: 80,
            blackouts: vec![Blackout { begins_at: Millis(1), ends_at: Millis(2) }],
        }
        .into(),
        LaneRuled {
            lane: "".into(),
            lateness_cost_minor: 1_000,
            currency: gbp.clone(),
            max_late_permille: 300,
        }
        .into(),
        BreakerMoved {
            courier: courier.clone(),
            partition: 3,
            state: BreakerState::Open,
            until: Millis(7),
        }
        .into(),
        TrackingReported {
            order_id,
            accepted_at,
            lane: lane.clone(),
            courier: courier.clone(),
            attempt: 1,
            event: TrackingEvent::Collected,
            occurred_at: Millis(6),
            detail: "PICKED_UP".into(),
        }
        .into(),
        ConsignmentMoved {
            order_id,
            accepted_at,
            attempt: 1,
            state: ConsignmentState::Shipped,
            occurred_at: Millis(6),
            detail: "".into(),
        }
        .into(),
        CourierDecided {
            order_id,
            accepted_at,
            lane: lane.clone(),
            attempt: 1,
            decided_at: Millis(5),
            courier: courier.clone(),
            reason: DecisionReason::Explored,
            propensity_permille: 125,
            lateness_cost_minor: 1_000,
            candidates: vec![Candidate {
                courier: courier.clone(),
                price_minor: 450,
                late_permille: 70,
                score_minor: 520,
                standing: Standing::Eligible,
            }],
        }
        .into(),
        DeliveryJudged {
            order_id,
            accepted_at,
            lane: lane.clone(),
            attempt: 1,
            courier: courier.clone(),
            judged_at: Millis(9),
            on_time: true,
            transit_ms: 86_400_000,
            price_minor: 450,
            expected_by_kept: true,
            expected_by: Millis(8),
        }
        .into(),
        OrderStatusChanged {
            order_id,
            accepted_at,
            merchant: merchant.clone(),
            version: 1,
            status: OrderStatus::Received,
            reason: "".into(),
            occurred_at: accepted_at,
            ordered_at: placed.ordered_at,
            total_minor: 1530,
            currency: gbp,
            line_count: 1,
            order: Some(placed),
            consignment: Some(consignment()),
            refusals: vec![refusal()],
            payments: vec![PaymentFact {
                method: 1,
                provider: provider.clone(),
                reference: "pi_1".into(),
                state: PaymentState::Captured,
                amount_minor: 1530,
                currency: Currency::parse("GBP").unwrap(),
            }],
        }
        .into(),
        StockLevelChanged {
            merchant: merchant.clone(),
            sku: sku.clone(),
            warehouse: warehouse.clone(),
            version: 12,
            on_hand: 10,
            reserved: 2,
            allocated: 1,
            changed_at: Millis(5),
            set_aside: 3,
            missing: 4,
        }
        .into(),
        CancelRequested {
            order_id,
            merchant: merchant.clone(),
            request_id: RequestId::derive("cancel", &merchant, "c1"),
            reason: "changed my mind".into(),
        }
        .into(),
        OrderConfirmed {
            order_id,
            merchant: merchant.clone(),
            request_id: RequestId::derive("confirm", &merchant, "c1"),
        }
        .into(),
        VoidConsignment {
            order_id,
            accepted_at,
            merchant: merchant.clone(),
            lane,
            courier: Some(courier),
            attempt: 1,
        }
        .into(),
        ConfirmationTimedOut { order_id, accepted_at }.into(),
        PaymentAnswered {
            order_id,
            accepted_at,
            method: 1,
            generation: 1,
            attempt: 1,
            provider: provider.clone(),
            step: PaymentStep::Authorize,
            outcome: PaymentOutcome::Declined,
            state: PaymentState::Declined,
            reference: "pi_1".into(),
            amount_minor: 1530,
            reason: "card_declined".into(),
            latency_ms: 80,
        }
        .into(),
        PaymentNotified {
            order_id,
            accepted_at,
            method: 1,
            generation: 1,
            provider,
            event_id: "evt_1".into(),
            state: PaymentState::Authorized,
            reference: "pi_1".into(),
            amount_minor: 1530,
            reason: "".into(),
            occurred_at: Millis(6),
        }
        .into(),
        DispatchLines {
            order_id,
            accepted_at,
            merchant: merchant.clone(),
            attempt: 1,
            requested_by: "k1".into(),
        }
        .into(),
        OrderDispatched {
            order_id,
            merchant: merchant.clone(),
            request_id: RequestId::derive("dispatch", &merchant, "d1"),
            requested_by: "k1".into(),
        }
        .into(),
        ChangeStock {
            change_id: RequestId::derive("transfer", &merchant, "t1"),
            merchant: merchant.clone(),
            sku: sku.clone(),
            warehouse: warehouse.clone(),
            kind: StockChangeKind::Transfer,
            quantity: 4,
            to_warehouse: Some(WarehouseCode::parse("east").unwrap()),
            reason: "closer to buyers".into(),
            requested_by: "k1".into(),
            fingerprint: Fingerprint(Uuid::from_u128(7)),
        }
        .into(),
        StockMoved {
            movement_id: Uuid::from_u128(1),
            merchant: merchant.clone(),
            sku: sku.clone(),
            warehouse: warehouse.clone(),
            kind: MovementKind::TransferOut,
            quantity: -4,
            on_hand: 6,
            source_id: Uuid::from_u128(2),
            reason: "closer to buyers".into(),
            requested_by: "k1".into(),
            moved_at: Millis(5),
        }
        .into(),
        StockRanLow {
            merchant: merchant.clone(),
            sku: sku.clone(),
            warehouse: warehouse.clone(),
            available: 2,
            low_at: 3,
            at: Millis(5),
        }
        .into(),
        FlashSaleScheduled {
            sale_id: RequestId::derive("flash_sale", &merchant, "f1"),
            merchant: merchant.clone(),
            sku,
            warehouse: warehouse.clone(),
            quantity: 10_000,
            per_customer: 2,
            starts_at: Millis(5),
            ends_at: Millis(6),
            requested_by: "k1".into(),
            fingerprint: Fingerprint(Uuid::from_u128(7)),
        }
        .into(),
        WarehouseListed {
            request_id: RequestId::derive("warehouse", &merchant, "w1"),
            merchant,
            warehouse,
            online: true,
            routes: vec![Route { country: "FR".into(), cost_minor: 900, distance_km: 850 }],
            cost_minor: 1_900,
            distance_km: 3_000,
            load_permille: 400,
            requested_by: "k1".into(),
            fingerprint: Fingerprint(Uuid::from_u128(7)),
            listed_at: Millis(5),
        }
        .into(),
    ]
}

#[test]
fn every_record_type_survives_its_bytes() {
    let codec = Codec::without_registry();
    let samples = samples();
    let types: Vec<_> = samples.iter().map(Record::record_type).collect();
    assert_eq!(types, RecordType::ALL, "a sample of every type, in order");
    for record in samples {
        let bytes = codec.to_bytes(&record);
        assert_eq!(codec.decode(&bytes).unwrap(), record);
    }
}

#[test]
fn the_schema_that_wrote_a_record_may_be_another_version() {
    let mut codec = Codec::without_registry();
    let mut older: serde_json::Value =
        serde_json::from_str(RecordType::CourierAnswered.schema_json()).unwrap();
    // An older writer had no promise: the reader fills in the default.
    older["fields"].as_array_mut().unwrap().retain(|f| f["name"] != "promised_at");
    let json = older.to_string();
    let Record::CourierAnswered(mut sample) = samples().swap_remove(10) else { unreachable!() };
    sample.promised_at = Millis(77);
    let schema = Schema::parse_str(&json).unwrap();
    let mut bytes = vec![0, 0, 0, 3, 233];
    GenericDatumWriter::builder(&schema)
        .human_readable(false)
        .build()
        .unwrap()
        .write_ser(&mut bytes, &Older(&sample))
        .unwrap();
    assert!(matches!(codec.decode(&bytes), Err(DecodeError::UnknownSchema(1001))));
    codec.add_foreign(1001, &json).unwrap();
    sample.promised_at = Millis(0);
    assert_eq!(codec.decode(&bytes).unwrap(), Record::CourierAnswered(sample));
}

/// Serialises all but the last field, as the older writer did.
struct Older<'a>(&'a CourierAnswered);

impl serde::Serialize for Older<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut s = serializer.serialize_struct("CourierAnswered", 13)?;
        s.serialize_field("order_id", &self.0.order_id)?;
        s.serialize_field("accepted_at", &self.0.accepted_at)?;
        s.serialize_field("lane", &self.0.lane)?;
        s.serialize_field("attempt", &self.0.attempt)?;
        s.serialize_field("courier", &self.0.courier)?;
        s.serialize_field("call", &self.0.call)?;
        s.serialize_field("outcome", &self.0.outcome)?;
        s.serialize_field("detail", &self.0.detail)?;
        s.serialize_field("latency_ms", &self.0.latency_ms)?;
        s.serialize_field("consignment_id", &self.0.consignment_id)?;
        s.serialize_field("tracking_number", &self.0.tracking_number)?;
        s.serialize_field("price_minor", &self.0.price_minor)?;
        s.serialize_field("currency", &self.0.currency)?;
        s.end()
    }
}

/// Records of the first release have no fingerprint, and do not say who and why.
#[test]
fn a_receipt_of_the_first_release_is_read() {
    #[derive(serde::Serialize)]
    struct First {
        receipt_id: ReceiptId,
        merchant: Merchant,
        warehouse: WarehouseCode,
        sku: Sku,
        quantity: i32,
    }
    let json = include_str!("../../schemas/released/StockReceived/1.avsc");
    let Record::StockReceived(sample) = samples().swap_remove(5) else { unreachable!() };
    let first = First {
        receipt_id: sample.receipt_id,
        merchant: sample.merchant.clone(),
        warehouse: sample.warehouse.clone(),
        sku: sample.sku.clone(),
        quantity: sample.quantity,
    };
    let mut bytes = vec![0, 0, 0, 3, 233];
    let schema = Schema::parse_str(json).unwrap();
    let writer = GenericDatumWriter::builder(&schema).human_readable(false).build().unwrap();
    writer.write_ser(&mut bytes, &first).unwrap();
    let mut codec = Codec::without_registry();
    codec.add_foreign(1001, json).unwrap();
    let expected =
        StockReceived { fingerprint: None, reason: "".into(), requested_by: "".into(), ..sample };
    assert_eq!(codec.decode(&bytes).unwrap(), Record::StockReceived(expected));
}

#[test]
fn hostile_bytes_err_and_never_panic() {
    let codec = Codec::without_registry();
    assert!(matches!(codec.decode(b""), Err(DecodeError::NotWireFormat(0))));
    assert!(matches!(codec.decode(b"\x01\0\0\0\x01x"), Err(DecodeError::NotWireFormat(6))));
    for record in samples() {
        let bytes = codec.to_bytes(&record);
        for cut in 5..bytes.len() {
            assert!(codec.decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(codec.decode(&longer), Err(DecodeError::TrailingBytes { extra: 1, .. })));
        for position in 5..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0xff;
            let _ = codec.decode(&flipped);
        }
    }
}

#[test]
fn a_record_type_name_is_its_schema_name() {
    for t in RecordType::ALL {
        let schema = &SCHEMAS[t.index()];
        assert_eq!(schema.name().unwrap().fullname(None), t.full_name());
    }
}
