//! An agent of our own, for keys that the caller names as files.
//!
//! It answers what a step may ask (`draft-miller-ssh-agent`): which keys there are, and
//! signatures. The private parts stay in the engine.

use std::fmt;

use num_bigint::BigUint;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
};
use ssh_key::private::{EcdsaKeypair, KeypairData, RsaKeypair};

/// Numbers of messages.
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Flags of a request to sign: which hash goes with an RSA key.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSshKey {
    /// It is not in OpenSSH's format.
    #[error(
        "it is no private key in OpenSSH's format ({0}); `ssh-keygen -p -f FILE` converts others"
    )]
    Format(String),
    /// It takes a passphrase.
    #[error("it is locked with a passphrase: unlock it with `ssh-add` and give the agent's socket")]
    Locked,
    /// Nobody signs with its kind here.
    #[error("keys of kind {0} are not supported: use ed25519, ecdsa with 256 or 384 bits, or rsa")]
    Kind(String),
    /// Its numbers do not fit together.
    #[error("its parts do not make a key: {0}")]
    Parts(String),
}

/// One key, ready to sign.
pub(crate) struct Key {
    /// The public part as SSH writes it.
    blob: Vec<u8>,
    comment: String,
    signer: Signer,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    /// With the name of the curve.
    Ecdsa(EcdsaKeyPair, &'static str),
    Rsa(RsaKeyPair),
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Key").field(&self.comment).finish()
    }
}

impl Key {
    /// Reads a file of `ssh-keygen`.
    pub(super) fn read(text: &[u8]) -> Result<Self, InvalidSshKey> {
        let format = |error: ssh_key::Error| InvalidSshKey::Format(error.to_string());
        let key = ssh_key::PrivateKey::from_openssh(text).map_err(format)?;
        if key.is_encrypted() {
            return Err(InvalidSshKey::Locked);
        }
        let blob = key.public_key().to_bytes().map_err(format)?;
        let parts = |error: ring::error::KeyRejected| InvalidSshKey::Parts(error.to_string());
        let signer = match key.key_data() {
            KeypairData::Ed25519(pair) => {
                let (seed, public) = (pair.private.as_ref(), pair.public.as_ref());
                let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
                Signer::Ed25519(pair.map_err(parts)?)
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
                let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
                let (private, public) = (private.as_slice(), public.as_bytes());
                let pair =
                    EcdsaKeyPair::from_private_key_and_public_key(kind, private, public, &random);
                Signer::Ecdsa(pair.map_err(parts)?, "ecdsa-sha2-nistp256")
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP384 { public, private }) => {
                let (kind, random) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
                let (private, public) = (private.as_slice(), public.as_bytes());
                let pair =
                    EcdsaKeyPair::from_private_key_and_public_key(kind, private, public, &random);
                Signer::Ecdsa(pair.map_err(parts)?, "ecdsa-sha2-nistp384")
            }
            KeypairData::Rsa(pair) => Signer::Rsa(rsa(pair)?),
            _ => return Err(InvalidSshKey::Kind(key.algorithm().to_string())),
        };
        Ok(Self { blob, comment: key.comment().to_string(), signer })
    }

    /// Name of the algorithm and the signature's bytes; `None` when the key does not do what is
    /// asked, such as RSA with SHA-1.
    fn sign(&self, data: &[u8], flags: u32) -> Option<(&'static str, Vec<u8>)> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Ed25519(pair) => Some(("ssh-ed25519", pair.sign(data).as_ref().to_vec())),
            Signer::Ecdsa(pair, name) => {
                let fixed = pair.sign(&random, data).ok()?;
                let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
                let mut both = Vec::new();
                put_number(&mut both, r);
                put_number(&mut both, s);
                Some((name, both))
            }
            Signer::Rsa(pair) => {
                let (name, padding): (_, &dyn ring::signature::RsaEncoding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, data, &mut signature).ok()?;
                Some((name, signature))
            }
        }
    }
}

/// OpenSSH leaves out two numbers that follow from the others.
fn rsa(pair: &RsaKeypair) -> Result<RsaKeyPair, InvalidSshKey> {
    let bytes = |number: &ssh_key::Mpint| {
        let negative = || InvalidSshKey::Parts("a number is negative".to_owned());
        number.as_positive_bytes().map(<[u8]>::to_vec).ok_or_else(negative)
    };
    let (public, private) = (pair.public(), pair.private());
    let (d, p, q) = (bytes(private.d())?, bytes(private.p())?, bytes(private.q())?);
    let exponent = |prime: &[u8]| {
        let prime = BigUint::from_bytes_be(prime);
        let one = BigUint::from(1_u8);
        if prime <= one {
            return Err(InvalidSshKey::Parts("a factor is too small".to_owned()));
        }
        Ok((BigUint::from_bytes_be(&d) % (prime - one)).to_bytes_be())
    };
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: bytes(public.n())?, e: bytes(public.e())? },
        dP: exponent(&p)?,
        dQ: exponent(&q)?,
        qInv: bytes(private.iqmp())?,
        d: d.clone(),
        p,
        q,
    };
    RsaKeyPair::from_components(&components)
        .map_err(|error| InvalidSshKey::Parts(error.to_string()))
}

/// Answers a request, which begins with its length. `None` is a failure.
pub(super) fn answer(keys: &[Key], request: &[u8]) -> Option<Vec<u8>> {
    let (kind, mut rest) = request.get(4..)?.split_first()?;
    let mut body = Vec::new();
    match *kind {
        REQUEST_IDENTITIES => {
            body.push(IDENTITIES_ANSWER);
            body.extend(u32::try_from(keys.len()).ok()?.to_be_bytes());
            for key in keys {
                put_bytes(&mut body, &key.blob);
                put_bytes(&mut body, key.comment.as_bytes());
            }
        }
        SIGN_REQUEST => {
            let blob = take_bytes(&mut rest)?;
            let data = take_bytes(&mut rest)?;
            let flags = u32::from_be_bytes(rest.try_into().ok()?);
            let key = keys.iter().find(|key| key.blob == blob)?;
            let (name, bytes) = key.sign(data, flags)?;
            let mut signature = Vec::new();
            put_bytes(&mut signature, name.as_bytes());
            put_bytes(&mut signature, &bytes);
            body.push(SIGN_RESPONSE);
            put_bytes(&mut body, &signature);
        }
        _ => return None,
    }
    let mut message = Vec::new();
    put_bytes(&mut message, &body);
    Some(message)
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    // What is written here is bounded by the length of a message.
    into.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend_from_slice(bytes);
}

/// A positive number as SSH writes it: without leading zeros, but for one that keeps the first
/// bit clear.
fn put_number(into: &mut Vec<u8>, bytes: &[u8]) {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let mut number = bytes.get(start..).unwrap_or_default().to_vec();
    if number.first().is_some_and(|byte| byte & 0x80 != 0) {
        number.insert(0, 0);
    }
    put_bytes(into, &number);
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::signature::{self, UnparsedPublicKey};

    use super::*;

    const ED25519: &[u8] = include_bytes!("../../tests/keys/ed25519");
    const ECDSA: &[u8] = include_bytes!("../../tests/keys/ecdsa");
    const RSA: &[u8] = include_bytes!("../../tests/keys/rsa");
    const LOCKED: &[u8] = include_bytes!("../../tests/keys/locked");

    fn request(kind: u8, parts: &[&[u8]], flags: Option<u32>) -> Vec<u8> {
        let mut body = vec![kind];
        parts.iter().for_each(|part| put_bytes(&mut body, part));
        body.extend(flags.into_iter().flat_map(u32::to_be_bytes));
        let mut message = Vec::new();
        put_bytes(&mut message, &body);
        message
    }

    /// The strings of an answer behind its length and kind.
    fn strings(mut answer: &[u8], kind: u8, skip: usize) -> Vec<Vec<u8>> {
        let mut body = take_bytes(&mut answer).unwrap();
        assert_eq!((body[0], answer.len()), (kind, 0));
        body = &body[1 + skip..];
        let mut strings = Vec::new();
        while let Some(string) = take_bytes(&mut body) {
            strings.push(string.to_vec());
        }
        strings
    }

    #[test]
    fn keys_are_listed_and_sign() {
        let keys = [ED25519, ECDSA, RSA].map(|text| Key::read(text).unwrap());
        let listed = strings(&answer(&keys, &request(11, &[], None)).unwrap(), 12, 4);
        let comments: Vec<_> = listed.iter().skip(1).step_by(2).collect();
        assert_eq!(comments, [b"test ed25519".as_slice(), b"test ecdsa", b"test rsa"]);
        let blobs: Vec<_> = listed.into_iter().step_by(2).collect();
        let sign = |number: usize, flags| {
            let asked = request(13, &[&blobs[number], b"data"], Some(flags));
            let signature = strings(&answer(&keys, &asked)?, 14, 0).remove(0);
            let (mut rest, mut both) = (signature.as_slice(), Vec::new());
            while let Some(part) = take_bytes(&mut rest) {
                both.push(part.to_vec());
            }
            Some((String::from_utf8(both[0].clone()).unwrap(), both[1].clone()))
        };
        let (name, bytes) = sign(0, 0).unwrap();
        assert_eq!(name, "ssh-ed25519");
        let public = &blobs[0][blobs[0].len() - 32..];
        UnparsedPublicKey::new(&signature::ED25519, public).verify(b"data", &bytes).unwrap();

        let (name, bytes) = sign(1, 0).unwrap();
        assert_eq!(name, "ecdsa-sha2-nistp384");
        let mut rest = bytes.as_slice();
        let mut fixed = Vec::new();
        while let Some(number) = take_bytes(&mut rest) {
            let number = BigUint::from_bytes_be(number).to_bytes_be();
            fixed.extend(vec![0; 48 - number.len()]);
            fixed.extend(number);
        }
        let public = &blobs[1][blobs[1].len() - 97..];
        let kind = &signature::ECDSA_P384_SHA384_FIXED;
        UnparsedPublicKey::new(kind, public).verify(b"data", &fixed).unwrap();

        let Signer::Rsa(pair) = &keys[2].signer else { panic!() };
        for (flags, name, kind) in [
            (2, "rsa-sha2-256", &signature::RSA_PKCS1_2048_8192_SHA256),
            (4, "rsa-sha2-512", &signature::RSA_PKCS1_2048_8192_SHA512),
        ] {
            let (told, bytes) = sign(2, flags).unwrap();
            assert_eq!(told, name);
            let public: signature::RsaPublicKeyComponents<Vec<u8>> = pair.public().into();
            public.verify(kind, b"data", &bytes).unwrap();
        }
        // SHA-1.
        assert_eq!(sign(2, 0), None);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let told = |text: &[u8]| Key::read(text).unwrap_err().to_string();
        assert!(told(LOCKED).contains("passphrase"), "{}", told(LOCKED));
        assert!(told(b"-----BEGIN RSA PRIVATE KEY-----\n").contains("ssh-keygen -p"));
        assert!(told(&ED25519[..100]).contains("OpenSSH"));
        assert_eq!(format!("{:?}", Key::read(ED25519).unwrap()), "Key(\"test ed25519\")");
    }

    proptest! {
        #[test]
        fn no_request_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let keys = [Key::read(ED25519).unwrap()];
            let _ = answer(&keys, &bytes);
            let _ = answer(&keys, &request(13, &[&keys[0].blob, &bytes], None));
        }

        #[test]
        fn no_file_breaks_it(at in 0..ED25519.len(), byte: u8) {
            let mut text = ED25519.to_vec();
            text[at] = byte;
            let _ = Key::read(&text);
        }
    }
}
