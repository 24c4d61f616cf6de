//! The closed set of record types: one Avro schema, one registry subject and one Rust type each.

use crate::{
    AllocateLines, BookConsignment, BreakerMoved, CancelRequested, ChangeStock,
    ConfirmationTimedOut, ConsignmentBooked, ConsignmentFailed, ConsignmentMoved, CourierAnswered,
    CourierDecided, CourierListed, CourierRuled, DeliveryJudged, DispatchLines, FlashSaleScheduled,
    LaneRuled, LinesRefused, LinesReserved, OrderConfirmed, OrderDispatched, OrderPlaced,
    OrderRepeated, OrderStatusChanged, PaymentAnswered, PaymentNotified, ReleaseLines,
    ReserveLines, StockLevelChanged, StockMoved, StockRanLow, StockReceived, TrackingReported,
    VoidConsignment, WarehouseListed,
};

macro_rules! records {
    ($($name:ident),+ $(,)?) => {
        /// The type of a record.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RecordType {
            $(#[doc = concat!("[`", stringify!($name), "`].")] $name,)+
        }

        impl RecordType {
            /// Every type, in declaration order: `ALL[t.index()] == t`.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The type's name without namespace.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// The checked-in Avro schema, JSON.
            pub fn schema_json(self) -> &'static str {
                match self {
                    $(Self::$name => {
                        include_str!(concat!("../../schemas/", stringify!($name), ".avsc"))
                    }),+
                }
            }
        }

        /// A record of any type. Passed by move and decoded once: boxing the large variants would
        /// buy nothing but an allocation per record.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant)]
        pub enum Record {
            $(#[doc = concat!("[`", stringify!($name), "`].")] $name($name),)+
        }

        impl Record {
            /// The record's type.
            pub fn record_type(&self) -> RecordType {
                match self { $(Self::$name(_) => RecordType::$name),+ }
            }

            pub(crate) fn write(
                &self,
                writer: &apache_avro::writer::datum::GenericDatumWriter<'_>,
                out: &mut Vec<u8>,
            ) -> apache_avro::AvroResult<usize> {
                match self { $(Self::$name(record) => writer.write_ser(out, record)),+ }
            }

            pub(crate) fn read(
                record_type: RecordType,
                reader: &apache_avro::reader::datum::GenericDatumReader<'_>,
                datum: &mut &[u8],
            ) -> apache_avro::AvroResult<Self> {
                Ok(match record_type {
                    $(RecordType::$name => Self::$name(reader.read_deser(datum)?)),+
                })
            }

            pub(crate) fn from_value(
                record_type: RecordType,
                value: &apache_avro::types::Value,
            ) -> apache_avro::AvroResult<Self> {
                Ok(match record_type {
                    $(RecordType::$name => Self::$name(apache_avro::from_value(value)?)),+
                })
            }
        }

        /// As its type: for people and programs that read JSON, never for the log.
        impl serde::Serialize for Record {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$name(record) => record.serialize(serializer)),+ }
            }
        }

        $(impl From<$name> for Record {
            fn from(record: $name) -> Self { Self::$name(record) }
        })+
    };
}

records!(
    OrderPlaced,
    OrderRepeated,
    ReserveLines,
    ReleaseLines,
    AllocateLines,
    StockReceived,
    LinesReserved,
    LinesRefused,
    CourierListed,
    BookConsignment,
    CourierAnswered,
    ConsignmentBooked,
    ConsignmentFailed,
    CourierRuled,
    LaneRuled,
    BreakerMoved,
    TrackingReported,
    ConsignmentMoved,
    CourierDecided,
    DeliveryJudged,
    OrderStatusChanged,
    StockLevelChanged,
    CancelRequested,
    OrderConfirmed,
    VoidConsignment,
    ConfirmationTimedOut,
    PaymentAnswered,
    PaymentNotified,
    DispatchLines,
    OrderDispatched,
    ChangeStock,
    StockMoved,
    StockRanLow,
    FlashSaleScheduled,
    WarehouseListed,
);

impl RecordType {
    /// Position in [`RecordType::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The full record name, namespace included.
    pub fn full_name(self) -> String {
        format!("tillroll.{}", self.name())
    }
}
