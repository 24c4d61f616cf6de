//! `GET /v1/openapi.json`: what this API takes and answers, for people and programs. `openapi.json` is kept by hand; the
//! tests here hold it against the routes, the codes and the statuses, and `tests/read_api.rs` against a server.

use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

const DOCUMENT: &str = include_str!("openapi.json");

pub(crate) fn show() -> Response {
    let mut response = Response::new(DOCUMENT.into());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;
    use crate::problem::Code;

    /// The file that dispatches, as text: what its patterns mean is checked by a server.
    const ROUTES: &str = include_str!("routes.rs");
    const STATUS: &str = include_str!("../../avro/schemas/OrderStatusChanged.avsc");

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn texts(list: &Value) -> BTreeSet<String> {
        let texts = list.as_array().unwrap().iter();
        texts.map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// Paths and their methods as the dispatcher names them where it takes POST alone or refuses another
    /// method.
    fn routes() -> BTreeMap<String, BTreeSet<String>> {
        let mut routes = BTreeMap::new();
        for (at, _) in ROUTES.match_indices("\"/v1/") {
            let (path, rest) = ROUTES[at + 1..].split_once('"').unwrap();
            let rest = rest.trim_start_matches(',').trim_start();
            let methods = match rest.strip_prefix("only(\"") {
                Some(rest) => rest.split('"').next().unwrap(),
                None if rest.starts_with("post(") => "POST",
                None => continue,
            };
            let methods = methods.split(", ").map(str::to_lowercase).collect();
            assert!(routes.insert(path.to_owned(), methods).is_none(), "{path} twice");
        }
        routes
    }

    #[test]
    fn it_has_every_route_with_its_methods_and_no_other() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeMap<String, BTreeSet<String>> = paths
            .iter()
            .filter(|(path, _)| path.starts_with("/v1/"))
            .map(|(path, item)| (path.clone(), item.as_object().unwrap().keys().cloned().collect()))
            .collect();
        assert_eq!(described, routes());
        assert!(described.len() >= 10, "{described:?}");
        // A path that is answered under a name of its own would be missed above.
        let dispatcher = ROUTES.split("#[cfg(test)]").next().unwrap();
        for literal in dispatcher.split('"').filter(|text| text.starts_with("/v1/")) {
            assert!(described.contains_key(literal), "{literal}");
        }
    }

    #[test]
    fn it_has_every_code_and_every_status() {
        let schemas = &document()["components"]["schemas"];
        let codes = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
        assert_eq!(texts(&schemas["ProblemCode"]["enum"]), codes);
        let record: Value = serde_json::from_str(STATUS).unwrap();
        let fields = record["fields"].as_array().unwrap();
        let status = fields.iter().find(|field| field["name"] == "status").unwrap();
        let mut statuses = texts(&status["type"]["symbols"]);
        statuses.remove("unknown");
        assert_eq!(texts(&schemas["Status"]["enum"]), statuses);
    }

    #[test]
    fn whatever_it_refers_to_is_there() {
        fn check(root: &Value, value: &Value, found: &mut usize) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(target)) = object.get("$ref") {
                        let target = target.strip_prefix('#').unwrap();
                        assert!(root.pointer(target).is_some(), "{target}");
                        *found += 1;
                    }
                    object.values().for_each(|value| check(root, value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| check(root, value, found)),
                _ => {}
            }
        }
        let (document, mut found) = (document(), 0);
        check(&document, &document, &mut found);
        assert!(found > 50, "{found}");
    }
}
