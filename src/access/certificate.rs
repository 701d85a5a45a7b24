//! By what the certificate of a client is known. It is one of `tls.client_ca`, as TLS has checked.

use clipper_domain::SecretHash;
use clipper_domain::access::PublicIdentity;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::common_name;
use super::secret::hash;

/// Names in a certificate that are looked up.
const NAMES_MAX: usize = 32;

/// The hashes by which keys are found for a certificate: that of its fingerprint, that of the
/// common name of its subject, then those of its other names.
#[must_use]
pub fn identities(der: &[u8]) -> Box<[SecretHash]> {
    let fingerprint = hash(der).to_string();
    let der = CertificateDer::from(der);
    // Without names it still has its fingerprint.
    let certificate = EndEntityCert::try_from(&der).ok();
    let names = certificate.iter().flat_map(|certificate| {
        let hosts = certificate.valid_dns_names().map(|name| format!("dns:{name}"));
        hosts.chain(certificate.valid_uri_names().map(|name| format!("uri:{name}")))
    });
    let common_name = certificate.as_ref().and_then(|certificate| {
        common_name::of(certificate.subject()).map(|name| format!("cn:{name}"))
    });
    let texts = std::iter::once(fingerprint).chain(common_name).chain(names.take(NAMES_MAX));
    let identities = texts.filter_map(|text| PublicIdentity::certificate(&text).ok());
    identities.map(|identity| hash(identity.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_its_fingerprint_and_its_names() {
        let of = |text: &str| hash(PublicIdentity::certificate(text).unwrap().as_bytes());
        let names = vec!["ops.example".to_owned(), "10.0.0.7".to_owned()];
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example");
        params.distinguished_name.push(rcgen::DnType::CommonName, "ops-team");
        let made = params.self_signed(&key).unwrap();
        let der = made.der();
        let expected = [of(&hash(der).to_string()), of("cn:ops-team"), of("dns:ops.example")];
        assert_eq!(identities(der)[..], expected);
        assert_eq!(identities(b"none").len(), 1);
    }
}
