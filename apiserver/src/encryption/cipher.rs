//! The ciphers that values are sealed with: `aesgcm` and `secretbox`, as kube-apiserver lays them out.
//!
//! Both put a random nonce before what is sealed. `aesgcm` authenticates the value's key of the store
//! too; the construction of `secretbox` has no place for it.

use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce as BoxNonce, XSalsa20Poly1305};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

const BOX_NONCE_BYTES: usize = XSalsa20Poly1305::NONCE_SIZE;

pub(super) enum Cipher {
    AesGcm(Box<LessSafeKey>),
    SecretBox(Box<XSalsa20Poly1305>),
}

impl Cipher {
    /// # Errors
    /// The secret has not 16 or 32 bytes.
    pub(super) fn aes_gcm(secret: &[u8]) -> anyhow::Result<Cipher> {
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            length => anyhow::bail!("it has {length} bytes: aesgcm takes 16 or 32"),
        };
        let key = UnboundKey::new(algorithm, secret)
            .map_err(|_| anyhow::anyhow!("it cannot be used with aesgcm"))?;
        Ok(Cipher::AesGcm(Box::new(LessSafeKey::new(key))))
    }

    /// # Errors
    /// The secret has not 32 bytes.
    pub(super) fn secret_box(secret: &[u8]) -> anyhow::Result<Cipher> {
        match XSalsa20Poly1305::new_from_slice(secret) {
            Ok(cipher) => Ok(Cipher::SecretBox(Box::new(cipher))),
            Err(_) => anyhow::bail!("it has {} bytes: secretbox takes 32", secret.len()),
        }
    }

    /// Appends the nonce and the sealed value to `out`.
    pub(super) fn seal(&self, random: &SystemRandom, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        const RANDOM: &str = "the system has random numbers";
        match self {
            Cipher::AesGcm(cipher) => {
                let mut nonce = [0; NONCE_LEN];
                random.fill(&mut nonce).expect(RANDOM);
                out.extend_from_slice(&nonce);
                let start = out.len();
                out.extend_from_slice(value);
                let tag = cipher
                    .seal_in_place_separate_tag(
                        Nonce::assume_unique_for_key(nonce),
                        Aad::from(key),
                        &mut out[start..],
                    )
                    .expect("a value is far smaller than what AES-GCM can seal");
                out.extend_from_slice(tag.as_ref());
            }
            Cipher::SecretBox(cipher) => {
                let mut nonce = [0; BOX_NONCE_BYTES];
                random.fill(&mut nonce).expect(RANDOM);
                let sealed = cipher
                    .encrypt(BoxNonce::from_slice(&nonce), value)
                    .expect("a value is far smaller than what XSalsa20 can seal");
                out.extend_from_slice(&nonce);
                out.extend_from_slice(&sealed);
            }
        }
    }

    /// What [`Cipher::seal`] sealed; `None` if another key or cipher did, or something was changed.
    pub(super) fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Cipher::AesGcm(cipher) => {
                let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
                let mut open = sealed.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length = cipher.open_in_place(nonce, Aad::from(key), &mut open).ok()?.len();
                open.truncate(length);
                Some(open)
            }
            Cipher::SecretBox(cipher) => {
                let (nonce, sealed) = sealed.split_at_checked(BOX_NONCE_BYTES)?;
                cipher.decrypt(BoxNonce::from_slice(nonce), sealed).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ciphers() -> [Cipher; 3] {
        [
            Cipher::aes_gcm(&[1; 16]).unwrap(),
            Cipher::aes_gcm(&[1; 32]).unwrap(),
            Cipher::secret_box(&[1; 32]).unwrap(),
        ]
    }

    #[test]
    fn what_is_sealed_is_opened_unless_it_was_changed() {
        let random = SystemRandom::new();
        for value in [&b""[..], b"{}", &[7; 100_000]] {
            for cipher in ciphers() {
                let mut sealed = b"before:".to_vec();
                cipher.seal(&random, b"/a", value, &mut sealed);
                let sealed = sealed.strip_prefix(b"before:").unwrap();
                assert_eq!(cipher.open(b"/a", sealed).unwrap(), value);
                for at in [0, sealed.len() / 2, sealed.len() - 1] {
                    let mut changed = sealed.to_vec();
                    changed[at] ^= 1;
                    assert_eq!(cipher.open(b"/a", &changed), None, "byte {at}");
                }
                assert_eq!(cipher.open(b"/a", &sealed[..sealed.len() - 1]), None);
                assert_eq!(cipher.open(b"/a", b""), None);
            }
        }
    }

    #[test]
    fn only_aes_gcm_binds_a_value_to_its_place() {
        let random = SystemRandom::new();
        let moves = ciphers().map(|cipher| {
            let mut sealed = Vec::new();
            cipher.seal(&random, b"/a", b"{}", &mut sealed);
            cipher.open(b"/b", &sealed).is_some()
        });
        assert_eq!(moves, [false, false, true]);
    }

    /// Computed by another implementation, which reproduces the test vector of NaCl's own tests.
    #[test]
    fn a_secret_box_of_another_implementation_is_opened() {
        let secret: Vec<u8> = (0..32).collect();
        let nonce: Vec<u8> = (100..124).collect();
        let boxed = [
            0xaa, 0x93, 0xd2, 0xc2, 0xbe, 0x2f, 0xf2, 0x5c, 0x28, 0x3a, 0x43, 0xcc, 0xfa, 0xa1,
            0xdf, 0x9f, 0x79, 0x9b, 0xf2, 0xa0, 0x54, 0xd2, 0xec, 0xd3, 0x92, 0xae, 0x46, 0xf7,
            0x45, 0xe1, 0xd7, 0x3a, 0x43,
        ];
        let cipher = Cipher::secret_box(&secret).unwrap();
        let sealed = [nonce.as_slice(), &boxed].concat();
        assert_eq!(cipher.open(b"/any", &sealed).unwrap(), b"{\"kind\":\"Secret\"}");
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        assert!(Cipher::aes_gcm(&[0; 24]).err().unwrap().to_string().contains("16 or 32"));
        assert!(Cipher::secret_box(&[0; 16]).err().unwrap().to_string().contains("takes 32"));
    }
}
