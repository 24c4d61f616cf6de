//! Pure: whether a webhook's signature and time are right. Compared in constant time.

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use warp::http::HeaderMap;
use wire::secret::Secret;

/// Shortest key of Standard Webhooks, bytes.
const SHORTEST_KEY: usize = 24;

/// When a webhook came in, and how far from that it may have been signed, seconds: what is older is a
/// replay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    pub(super) now_s: i64,
    pub(super) tolerance_s: i64,
}

impl Age {
    fn allows(self, time: &str) -> bool {
        let off = time.parse::<i64>().map(|time| self.now_s.abs_diff(time));
        off.is_ok_and(|off| off <= self.tolerance_s.unsigned_abs())
    }
}

/// The key that a secret of Standard Webhooks stands for: `whsec_` and its base64.
pub(super) fn key(secret: &str) -> Result<Vec<u8>> {
    match STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)) {
        Ok(key) if key.len() >= SHORTEST_KEY => Ok(key),
        _ => bail!("a secret is whsec_ and the base64 of at least {SHORTEST_KEY} bytes"),
    }
}

/// `Stripe-Signature: t=…,v1=…`: HMAC-SHA256 over `t.body`, hex, keyed with the endpoint's secret; several
/// `v1` while a secret is being rolled (Stripe's documentation, "Verify webhook signatures manually").
pub(super) fn stripe(headers: &HeaderMap, body: &[u8], secret: &Secret, age: Age) -> bool {
    let header = headers.get("stripe-signature").and_then(|value| value.to_str().ok());
    let Some(header) = header else { return false };
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let Some((_, time)) = parts().find(|(name, _)| *name == "t") else { return false };
    let given = parts().filter(|(name, _)| *name == "v1");
    age.allows(time)
        && given.filter_map(|(_, text)| unhex(text)).any(|signature| {
            signed(secret.expose().as_bytes(), &[time.as_bytes(), b".", body], &signature)
        })
}

/// `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,…`: HMAC-SHA256 over `id.timestamp.body`,
/// base64, under one of the keys; several `v1` while a key is replaced (the Standard Webhooks
/// specification).
pub(super) fn standard(headers: &HeaderMap, body: &[u8], keys: &[Vec<u8>], age: Age) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(time), Some(given)) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
    else {
        return false;
    };
    let content: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    let given = given.split(' ').filter_map(|part| part.strip_prefix("v1,"));
    age.allows(time)
        && given
            .filter_map(|text| STANDARD.decode(text).ok())
            .any(|signature| keys.iter().any(|key| signed(key, &content, &signature)))
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

    fn age(now_s: i64) -> Age {
        Age { now_s, tolerance_s: 300 }
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
            stripe(&headers(&[("stripe-signature", header)]), body, &secret, age(now))
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
        assert!(!stripe(&HeaderMap::new(), BODY, &secret, age(NOW)));
    }

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn a_standard_webhooks_signature_covers_id_time_and_body() {
        const AT: i64 = 1_614_265_330;
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let check = |id: &str, body: &[u8], now, keys: &[Vec<u8>]| {
            let signatures = "v1a,none v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
            let headers = headers(&[
                ("webhook-id", id),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", signatures),
            ]);
            standard(&headers, body, keys, age(now))
        };
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let keys = [vec![0; 24], key];
        assert!(check(id, body, AT, &keys) && check(id, body, AT + 300, &keys));
        assert!(!check(id, body, AT + 301, &keys) && !check(id, body, AT - 301, &keys), "a replay");
        assert!(!check("e2", body, AT, &keys) && !check(id, b"{}", AT, &keys));
        assert!(!check(id, body, AT, &keys[..1]), "another key");
        assert!(!check(id, body, AT, &[]), "no key");
    }
}
