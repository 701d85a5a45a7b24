//! Tokens by keys of ring; by other programs' in `tests/e2e/tokens.rs`.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::json;

use super::*;
use clipper_domain::Role;
use clipper_domain::access::InvalidPattern;

const NOW: u64 = 1_800_000_000_000;

struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    random: SystemRandom,
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap();
        Self { ed, ec, random }
    }

    fn jwks(&self) -> String {
        let point = self.ec.public_key().as_ref();
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA",
            "x": text(self.ed.public_key())});
        let ec = json!({"kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig",
            "x": text(&point[1..33]), "y": text(&point[33..])});
        json!({"keys": [ed, ec]}).to_string()
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        let signature = match header["alg"].as_str() {
            Some("EdDSA") => text(self.ed.sign(signed.as_bytes())),
            _ => text(self.ec.sign(&self.random, signed.as_bytes()).unwrap()),
        };
        format!("{signed}.{signature}")
    }

    fn tokens(&self) -> Tokens {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), self.jwks()).unwrap();
        Tokens::of(&AccessConfig {
            jwt_keys: file.path().to_owned(),
            jwt_issuer: "https://issuer.example".to_owned(),
            jwt_audience: "clipper".to_owned(),
            ..AccessConfig::default()
        })
        .unwrap()
        .unwrap()
    }
}

fn ed() -> Value {
    json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"})
}

fn good() -> Value {
    json!({"iss": "https://issuer.example", "aud": ["other", "clipper"], "sub": "ci/1",
        "exp": NOW / 1_000 + 60, "role": "predict", "app": "a-*"})
}

fn with(claim: &str, value: Value) -> Value {
    let mut claims = good();
    claims[claim] = value;
    claims
}

#[test]
fn a_token_is_its_holders_key_for_as_long_as_it_says() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    for header in [ed(), json!({"alg": "ES256", "kid": "ec"}), json!({"alg": "ES256"})] {
        let token = issuer.token(&header, &good());
        assert!(Tokens::is_meant(token.as_bytes()));
        let of = hash(token.as_bytes());
        assert_eq!(tokens.remembered(&of, NOW), None);
        let holder = tokens.take(token.as_bytes(), NOW).unwrap();
        let key = &holder.key;
        assert_eq!(
            (key.name.as_str(), key.role, key.only.as_str()),
            ("jwt ci%2F1", Role::Predict, "a-*")
        );
        assert_eq!(key.expires_at_ms, Some(NOW + 60_000));
        assert_eq!(tokens.remembered(&of, NOW + 59_999).as_ref(), Some(&holder));
        assert_eq!(tokens.remembered(&of, NOW + 60_000), None);
    }
    let many = issuer.token(&ed(), &with("role", json!(["staff", "predict"])));
    assert_eq!(tokens.take(many.as_bytes(), NOW).unwrap().key.role, Role::Predict);
    // The issuer gives up the key that it was signed by.
    let token = issuer.token(&ed(), &good());
    tokens.take(token.as_bytes(), NOW).unwrap();
    tokens.signers.store(Arc::new(jwk::parse(&Issuer::new().jwks()).unwrap()));
    assert_eq!(tokens.remembered(&hash(token.as_bytes()), NOW), None);
    assert_eq!(tokens.take(token.as_bytes(), NOW), Err(TokenFault::Signature));
}

#[test]
fn what_it_says_has_to_be_for_this_server_now() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    let role = || TokenFault::Role("role".to_owned());
    for (claims, expected) in [
        (with("iss", json!("https://evil.example")), TokenFault::Issuer),
        (with("iss", json!(null)), TokenFault::Issuer),
        (with("aud", json!("other")), TokenFault::Audience),
        (with("aud", json!(null)), TokenFault::Audience),
        (with("exp", json!(NOW / 1_000)), TokenFault::Expired),
        (with("exp", json!("soon")), TokenFault::Time("exp")),
        (with("nbf", json!(NOW / 1_000 + 31)), TokenFault::Early),
        (with("role", json!("root")), role()),
        (with("role", json!(["predict", "admin"])), role()),
        (with("role", json!("container")), role()),
        (with("role", json!("observe")), TokenFault::NotLimitable(Role::Observe)),
        (with("app", json!(7)), TokenFault::Names("app".to_owned(), InvalidPattern)),
        (with("sub", json!("")), TokenFault::Subject),
        (with("sub", json!("x".repeat(300))), TokenFault::Subject),
    ] {
        let token = issuer.token(&ed(), &claims);
        let refused = tokens.take(token.as_bytes(), NOW).map(|holder| holder.key.name.clone());
        assert_eq!(refused, Err(expected), "{claims}");
    }
    let mut endless = good();
    endless.as_object_mut().unwrap().remove("exp");
    let token = issuer.token(&ed(), &endless);
    assert_eq!(tokens.take(token.as_bytes(), NOW), Err(TokenFault::Endless));
    let early = issuer.token(&ed(), &with("nbf", json!(NOW / 1_000 + 29)));
    assert!(tokens.take(early.as_bytes(), NOW).is_ok(), "clocks differ");
}

#[test]
fn nobody_else_signs_for_the_issuer() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let tokens = issuer.tokens();
    let signed = issuer.token(&ed(), &good());
    let (body, signature) = signed.rsplit_once('.').unwrap();
    let unsigned = |header: &Value| format!("{}.{}", text(header.to_string()), text("{}"));
    let (none, hmac) = (json!({"alg": "none"}), json!({"alg": "HS256", "kid": "ed"}));
    // The public key as the secret of an HMAC.
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.ed.public_key().as_ref());
    let by_public = ring::hmac::sign(&secret, unsigned(&hmac).as_bytes());
    let (header, claims) = body.split_once('.').unwrap();
    let changed =
        format!("{header}.{}.{signature}", text(with("role", json!("admin")).to_string()));
    let critical = json!({"alg": "EdDSA", "kid": "ed", "crit": ["b64"]});
    for (token, expected) in [
        (format!("{}.", unsigned(&none)), TokenFault::Algorithm),
        (format!("{}.{signature}", unsigned(&json!({"alg": "None"}))), TokenFault::Algorithm),
        (format!("{}.{}", unsigned(&hmac), text(by_public)), TokenFault::Algorithm),
        (other.token(&ed(), &good()), TokenFault::Signature),
        (other.token(&json!({"alg": "EdDSA", "kid": "x"}), &good()), TokenFault::Signer),
        (issuer.token(&json!({"alg": "ES256", "kid": "ed"}), &good()), TokenFault::Signer),
        (issuer.token(&critical, &good()), TokenFault::Critical),
        (changed, TokenFault::Signature),
        (format!("{body}."), TokenFault::Signature),
        (format!("{body}.{signature}="), TokenFault::Form),
        (format!("{header}.{claims}"), TokenFault::Form),
        ("eyJ..".to_owned(), TokenFault::Form),
        (format!("eyJ{}.a.b", "a".repeat(TOKEN_MAX_BYTES)), TokenFault::Form),
    ] {
        assert_eq!(tokens.take(token.as_bytes(), NOW), Err(expected), "{token}");
    }
    assert!(tokens.take(signed.as_bytes(), NOW).is_ok());
}
