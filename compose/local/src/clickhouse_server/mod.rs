//! ClickHouse without containers: the engine as a library behind the part of ClickHouse's HTTP
//! interface that its clients use.
//!
//! - `GET|POST /?query=…&database=…&setting=value`, the statement in `query`, the body, or both; an
//!   INSERT's data in the body. Named parameters (`param_x`) in the address or as a form.
//! - Settings hold for one request: each has an engine connection of its own, so requests run side
//!   by side and leave nothing behind. There are no sessions, roles or compression of bodies:
//!   asking for them is an error.
//! - Users and their limits are checked here, since the engine knows no users.
//! - Errors carry ClickHouse's status, `X-ClickHouse-Exception-Code` and message; one that comes
//!   after the answer has begun ends it in ClickHouse's way, with a tagged exception.
//!
//! Reading order: `config` (flags), `users`, `request` (what is asked), `statement` (just enough
//! SQL to tell an INSERT's data from its head), `job` (one request on the engine), `front` (HTTP).

mod config;
mod form;
mod front;
mod job;
mod refusal;
mod request;
mod statement;
mod users;

pub use config::{Arguments, Config};
pub use front::Server;
pub use users::{Limits, User};
