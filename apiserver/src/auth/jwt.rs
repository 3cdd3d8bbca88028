//! JSON Web Tokens (RFC 7515, 7517, 7518): taken apart, verified against a key, signed with ES256.
//!
//! What the claims mean is their readers' business. Only signatures of public keys exist here: what
//! says `none` or `HS256` fits no key, whatever else it says.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Longer than any issuer's; what is longer is not even decoded.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What precedes the point in the DER form of every P-256 public key.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The parts of a token. Nothing of it is true before [`Jwk::verifies`] says so.
pub(crate) struct Unverified<'t> {
    pub(crate) algorithm: String,
    pub(crate) key_id: String,
    pub(crate) claims: Map<String, Value>,
    signed: &'t str,
    signature: Vec<u8>,
}

impl<'t> Unverified<'t> {
    /// `None`: no JWT, or one that demands extensions.
    pub(crate) fn parse(token: &'t str) -> Option<Unverified<'t>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| -> Option<Map<String, Value>> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let header = object(header)?;
        if header.contains_key("crit") {
            return None;
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Unverified {
            algorithm: text("alg")?,
            key_id: text("kid").unwrap_or_default(),
            claims: object(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    pub(crate) fn text(&self, claim: &str) -> &str {
        self.claims.get(claim).and_then(Value::as_str).unwrap_or_default()
    }

    /// `aud`, which may be one text or a list of them.
    pub(crate) fn audiences(&self) -> Vec<String> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Seconds since 1970; fractions are allowed and cut.
    pub(crate) fn time_s(&self, claim: &str) -> Option<i64> {
        let number = self.claims.get(claim)?;
        number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64))
    }
}

enum PublicKey {
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

/// A public key of an issuer.
pub(crate) struct Jwk {
    pub(crate) id: String,
    /// The only algorithm it is for; empty when it does not say.
    algorithm: String,
    key: PublicKey,
}

impl Jwk {
    /// `None` for keys that verify no signature, or by an algorithm that we have not.
    pub(crate) fn from_json(jwk: &Value) -> Option<Jwk> {
        let text = |name: &str| jwk[name].as_str().unwrap_or_default();
        let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)).ok().filter(|n| !n.is_empty());
        if !matches!(text("use"), "" | "sig") {
            return None;
        }
        let key = match (text("kty"), text("crv")) {
            ("EC", curve @ ("P-256" | "P-384")) => {
                let (x, y) = (number("x")?, number("y")?);
                let size = if curve == "P-256" { 32 } else { 48 };
                if x.len() != size || y.len() != size {
                    return None;
                }
                let point = [&[4][..], &x, &y].concat();
                if size == 32 { PublicKey::P256(point) } else { PublicKey::P384(point) }
            }
            ("RSA", _) => {
                PublicKey::Rsa(RsaPublicKeyComponents { n: number("n")?, e: number("e")? })
            }
            _ => return None,
        };
        Some(Jwk { id: text("kid").to_owned(), algorithm: text("alg").to_owned(), key })
    }

    /// Whether this key may have signed the token: its id and its algorithm fit.
    pub(crate) fn fits(&self, token: &Unverified<'_>) -> bool {
        let or_any = |own: &str, said: &str| own.is_empty() || said.is_empty() || own == said;
        or_any(&self.id, &token.key_id) && or_any(&self.algorithm, &token.algorithm)
    }

    /// Whether this key signed the token. The algorithm must be one of this sort of key.
    pub(crate) fn verifies(&self, token: &Unverified<'_>) -> bool {
        if !self.fits(token) {
            return false;
        }
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        let ecdsa = |algorithm, point: &Vec<u8>| {
            UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
        };
        let rsa = match (&self.key, token.algorithm.as_str()) {
            (PublicKey::P256(point), "ES256") => {
                return ecdsa(&signature::ECDSA_P256_SHA256_FIXED, point);
            }
            (PublicKey::P384(point), "ES384") => {
                return ecdsa(&signature::ECDSA_P384_SHA384_FIXED, point);
            }
            (PublicKey::Rsa(_), "RS256") => &signature::RSA_PKCS1_2048_8192_SHA256,
            (PublicKey::Rsa(_), "RS384") => &signature::RSA_PKCS1_2048_8192_SHA384,
            (PublicKey::Rsa(_), "RS512") => &signature::RSA_PKCS1_2048_8192_SHA512,
            (PublicKey::Rsa(_), "PS256") => &signature::RSA_PSS_2048_8192_SHA256,
            (PublicKey::Rsa(_), "PS384") => &signature::RSA_PSS_2048_8192_SHA384,
            (PublicKey::Rsa(_), "PS512") => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return false,
        };
        matches!(&self.key, PublicKey::Rsa(key) if key.verify(rsa, message, signature).is_ok())
    }
}

/// A private key that signs tokens with ES256.
pub(crate) struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    /// As Kubernetes names keys: the digest of the public key's DER form.
    id: String,
}

impl SigningKey {
    /// From PKCS #8; `None` when it is no key on P-256.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<SigningKey> {
        let random = SystemRandom::new();
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der, &random).ok()?;
        let public = [P256_PREFIX, pair.public_key().as_ref()].concat();
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(public));
        Some(SigningKey { pair, random, id })
    }

    /// The public half, as it is published.
    pub(crate) fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let half = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": half(&point[1..33]), "y": half(&point[33..]),
        })
    }

    /// `None` when the system has no random numbers for us.
    pub(crate) fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn new_key() -> SigningKey {
        let key = rcgen::KeyPair::generate().unwrap();
        SigningKey::from_pkcs8(key.serialized_der()).unwrap()
    }

    fn verifies(jwk: &Jwk, token: &str) -> bool {
        Unverified::parse(token).is_some_and(|token| jwk.verifies(&token))
    }

    #[test]
    fn what_was_signed_is_verified_and_nothing_else() {
        let key = new_key();
        let jwk = Jwk::from_json(&key.jwk()).unwrap();
        let token = key.sign(&json!({"sub": "a", "aud": ["b"], "exp": 5})).unwrap();
        assert!(verifies(&jwk, &token));
        let parsed = Unverified::parse(&token).unwrap();
        assert_eq!((parsed.text("sub"), parsed.time_s("exp")), ("a", Some(5)));
        assert_eq!(parsed.audiences(), ["b"]);
        let other = Jwk::from_json(&new_key().jwk()).unwrap();
        assert!(!verifies(&other, &token));
        let parts: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#);
        assert!(!verifies(&jwk, &format!("{}.{claims}.{}", parts[0], parts[2])));
        for cut in 0..token.len() {
            assert!(!verifies(&jwk, &token[..cut]), "{cut}");
        }
    }

    #[test]
    fn other_algorithms_than_the_keys_are_refused() {
        let key = new_key();
        let mut published = key.jwk();
        published.as_object_mut().unwrap().remove("alg");
        published.as_object_mut().unwrap().remove("kid");
        let jwk = Jwk::from_json(&published).unwrap();
        let token = key.sign(&json!({"sub": "a"})).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "HS256"}),
            json!({"alg": "RS256"}),
            json!({"alg": "ES384"}),
            json!({"alg": "ES256", "crit": ["x"]}),
            json!({}),
        ] {
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            assert!(!verifies(&jwk, &format!("{header}.{}.{}", parts[1], parts[2])));
            assert!(!verifies(&jwk, &format!("{header}.{}.", parts[1])));
        }
        // The public key as the secret of an HMAC: the classic confusion.
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let signed = format!("{header}.{}", parts[1]);
        let secret =
            ring::hmac::Key::new(ring::hmac::HMAC_SHA256, published.to_string().as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, signed.as_bytes()));
        assert!(!verifies(&jwk, &format!("{signed}.{tag}")));
    }

    /// Signed once by another implementation.
    #[test]
    fn tokens_of_others_are_verified() {
        let rsa = json!({
            "kty": "RSA", "e": "AQAB",
            "n": "1MAsEHlPUyRIDOtqM5P56Hj1FGlMKatk4Ex255hyrrzecxTIYzMD3NMuxB5TPWAMtWehli\
                            4Dcch2GnoHKsW06Sxu_F3s09cmNaHP0vp7A0cU4bMTct6UGTs7FQoubDQZEpK2fEoRSrFt\
                            ZcCVZ80RW0AvEKnVLF8bcOQxLcu-fGEN_GgBZylLoAgTeLjbwjQ3e_K_0OSnU3M0EbtMQx\
                            Pj-vLfdV1LbrhkGyZXxaptxpXaouoElY-9H_LBh7LOTmvR6ElyxXQ1da8PRToHb6Q39yLZ\
                            l2UPJUe09CfjJvIbeuzklfuy9xRRDLQjIyoBSILL0-q4wpAHRRvv5CuDNjUF5w",
        });
        let p384 = json!({
            "kty": "EC", "crv": "P-384",
            "x": "NNwSlMjJeSZS1bksg9kiNHBoD1IO2D-OcRfJfGDpqeYIs9V20TcheApGHULCmgdx",
            "y": "6fDo_GAoSNLITUjbZRsHO80Zr7ozQxjPYks4qKtIRn02Ioxj0u2DzqNb3okTZWK8",
        });
        let rs256 = "eyJhbGciOiAiUlMyNTYifQ.eyJzdWIiOiJhIn0.rppEe4zADjMAq7O8_WhHmtZ_JC9-eeP\
                            -EpcIB52LzIejBFWCJ_05CYtbSxSc4tu0dKuicrdnKsg7GffD5FxOzjjEfJVPAcOa83O-z\
                            BwmWDv44sdR_u6iOEsBzcvK2_yaQdpAj2M3vTNMerJsW432MDK8_rCHB8A5_agUBOvkV1l\
                            vsyXzM3iaWp7mrLhP0EcyaV8pvDgLKZyoYWNegTWYZfjlId7xv2cW5lhl5Ysg_YBkNU7VA\
                            48GB8DtgIUqhlkD2sqx7xzUF3_jLsFGgU0PYd9Y9917XRbJjLI3A0VLR60yxIgJ4KNN9ZV\
                            O_mYqv1mdnT27MAvY4bzcjR5wnyUCqw";
        let ps512 = "eyJhbGciOiAiUFM1MTIifQ.eyJzdWIiOiJhIn0.rJ9mOf8k4oz07baSTNynWCF5ZROcfVT\
                            ZLRt4noNkDyvHmFIXtDXMEi3YwHggk4SmxFt_YnnDiCyZBK-Pay4oTDDg0IyXuWlgKCmDp\
                            GTWBYTP-qpJeHzUoR1-bJcn-g0IV5SXx6hy3WTk9qiCSJ4qR7y_sYbz_g73R2CisoitBpo\
                            XIHTT3fWyquz4VU0v_JS9nfmo3o4gR6zOSG4q9PKhzNM8EhrwhcVR4cAuM_wZhsXt8yg87\
                            ut4t4utEefL0DqN58mHPNCjLsNUp2AwOfpEJfAkH4UDCgdfcUhBTSikOsqnkCg50MR5yIf\
                            2UOfAFKGVQTPpDxEI_N75hI0jfqDx5g";
        let es384 = "eyJhbGciOiAiRVMzODQifQ.eyJzdWIiOiJhIn0.pi-K2OrIUOm0bQ2uMcyj4zOVEZbzV14\
                            tIrXuzUTuKGODThKAP_q1z8CfGs2BTGNPsyQ4ekurjJ-zKmtdJytP8Fq_lHU1iVZyoY4LH\
                            mx6Qn01xeqnf1iNMzp-tkALgOTw";
        let (rsa, p384) = (Jwk::from_json(&rsa).unwrap(), Jwk::from_json(&p384).unwrap());
        for (key, token) in [(&rsa, rs256), (&rsa, ps512), (&p384, es384)] {
            assert!(verifies(key, token), "{token}");
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let mut broken = URL_SAFE_NO_PAD.decode(signature).unwrap();
            broken[7] ^= 1;
            assert!(!verifies(key, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(broken))));
        }
        assert!(!verifies(&p384, rs256) && !verifies(&rsa, es384));
    }
}
