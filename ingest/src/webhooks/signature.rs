//! Pure: whether a webhook's signature and time are right. Compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use warp::http::HeaderMap;
use wire::secret::Secret;

/// `Stripe-Signature: t=…,v1=…`: HMAC-SHA256 over `t.body`, hex, keyed with the endpoint's secret; several
/// `v1` while a secret is being rolled (Stripe's documentation, "Verify webhook signatures manually").
pub(crate) fn stripe(
    headers: &HeaderMap,
    body: &[u8],
    secret: &Secret,
    now_s: i64,
    tolerance_s: i64,
) -> bool {
    let header = headers.get("stripe-signature").and_then(|value| value.to_str().ok());
    let Some(header) = header else { return false };
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let Some((_, time)) = parts().find(|(name, _)| *name == "t") else { return false };
    let given = parts().filter(|(name, _)| *name == "v1");
    recent(time, now_s, tolerance_s)
        && given.filter_map(|(_, text)| unhex(text)).any(|signature| {
            signed(secret.expose().as_bytes(), &[time.as_bytes(), b".", body], &signature)
        })
}

/// `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,…`: HMAC-SHA256 over `id.timestamp.body`,
/// base64, keyed with what follows `whsec_`, base64 (the Standard Webhooks specification).
pub(crate) fn standard(
    headers: &HeaderMap,
    body: &[u8],
    secret: &Secret,
    now_s: i64,
    tolerance_s: i64,
) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(time), Some(given)) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
    else {
        return false;
    };
    let key = secret.expose();
    let Ok(key) = STANDARD.decode(key.strip_prefix("whsec_").unwrap_or(key)) else { return false };
    let content: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    let given = given.split(' ').filter_map(|part| part.strip_prefix("v1,"));
    recent(time, now_s, tolerance_s)
        && given
            .filter_map(|text| STANDARD.decode(text).ok())
            .any(|signature| signed(&key, &content, &signature))
}

fn recent(time: &str, now_s: i64, tolerance_s: i64) -> bool {
    time.parse::<i64>().is_ok_and(|time| now_s.abs_diff(time) <= tolerance_s.unsigned_abs())
}

fn signed(key: &[u8], parts: &[&[u8]], signature: &[u8]) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.verify_slice(signature).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok()?;
        let plain = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
        plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id": "evt_1"}"#;
    const NOW: i64 = 1_800_000_000;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }

    /// RFC 4231, test case 2: the same HMAC as everybody's.
    #[test]
    fn the_hmac_is_the_standards() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert!(signed(
            b"Jefe",
            &[b"what do ya ", b"want for nothing?"],
            &unhex(expected).unwrap()
        ));
    }

    #[test]
    fn stripes_signature_is_checked_with_its_time() {
        let secret = Secret::from("whsec_test");
        let hex = |time: &str| -> String {
            let mac = mac(b"whsec_test", &[time.as_bytes(), b".", BODY]);
            mac.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let check = |header: &str, body: &[u8], now| {
            stripe(&headers(&[("stripe-signature", header)]), body, &secret, now, 300)
        };
        let time = NOW.to_string();
        let good = format!("t={time},v1={},v0=00", hex(&time));
        assert!(check(&good, BODY, NOW) && check(&good, BODY, NOW + 300));
        assert!(!check(&good, BODY, NOW + 301), "a replay of an old event");
        assert!(!check(&good, b"{}", NOW), "another body");
        let rolled = format!("t={time},v1=00ff,v1={}", hex(&time));
        assert!(check(&rolled, BODY, NOW), "one of several is enough");
        let moved = format!("t={},v1={}", NOW + 1, hex(&time));
        assert!(!check(&moved, BODY, NOW), "the time is signed, too");
        for bad in ["", "t=1", "v1=00", "t=x,v1=00", "t=,v1=", "t=1800000000,v1=zz"] {
            assert!(!check(bad, BODY, NOW), "{bad}");
        }
        assert!(!stripe(&HeaderMap::new(), BODY, &secret, NOW, 300));
    }

    #[test]
    fn a_standard_webhooks_signature_covers_id_time_and_body() {
        let secret = Secret::from("whsec_c2VjcmV0");
        let time = NOW.to_string();
        let signature = STANDARD.encode(mac(b"secret", &[b"e1.", time.as_bytes(), b".", BODY]));
        let check = |id: &'static str, body: &[u8], now| {
            let signature = format!("v1a,none v1,{signature}");
            let headers = headers(&[
                ("webhook-id", id),
                ("webhook-timestamp", &time),
                ("webhook-signature", &signature),
            ]);
            standard(&headers, body, &secret, now, 300)
        };
        assert!(check("e1", BODY, NOW));
        assert!(!check("e2", BODY, NOW));
        assert!(!check("e1", b"", NOW));
        assert!(!check("e1", BODY, NOW - 301));
    }
}
