//! `signatures`: verifying what providers sign, also with keys that guests must not see.

use crate::plugin::runtime::bindings::signatures::{Host, SignatureError};
use crate::plugin::runtime::state::State;
use ace_signatures::Algorithm;

impl Host for State {
    async fn verify(
        &mut self,
        credential: String,
        algorithm: String,
        data: Vec<u8>,
        signature: Vec<u8>,
    ) -> wasmtime::Result<Result<bool, SignatureError>> {
        self.count_host_call()?;
        let name = match self.grants.credential(&credential) {
            Ok(name) => name.to_owned(),
            Err(why) => return Ok(Err(SignatureError::Denied(self.refuse("credentials", why)))),
        };
        let algorithm = match read_algorithm(&algorithm) {
            Ok(algorithm) => algorithm,
            Err(why) => return Ok(Err(SignatureError::Invalid(why))),
        };
        let credentials = self.services.credentials.load_full();
        let keys = self.outside(async |_| credentials.keys(&name).await).await;
        let keys = match keys {
            Ok(keys) => keys,
            Err(why) => return Ok(Err(SignatureError::Invalid(why.to_string()))),
        };
        let mut verified = keys.iter().map(|key| algorithm.verify(key.expose(), &data, &signature));
        let verified = verified.try_fold(false, |any, one| one.map(|one| any | one));
        Ok(verified.map_err(|why| SignatureError::Invalid(format!("the credential {credential:?}: {why}"))))
    }

    async fn verify_with(
        &mut self,
        key: Vec<u8>,
        algorithm: String,
        data: Vec<u8>,
        signature: Vec<u8>,
    ) -> wasmtime::Result<Result<bool, SignatureError>> {
        self.count_host_call()?;
        let verified = read_algorithm(&algorithm).and_then(|algorithm| {
            algorithm.verify_with_public_key(&key, &data, &signature).map_err(|why| why.to_string())
        });
        Ok(verified.map_err(SignatureError::Invalid))
    }
}

fn read_algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::named(name).ok_or_else(|| {
        format!("there is no algorithm {name:?}; there are {}", Algorithm::NAMES.map(|(n, _)| n).join(", "))
    })
}
