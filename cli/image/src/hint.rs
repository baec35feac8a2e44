//! What the operator can do about errors of registries and builds.

use std::error::Error;

use isolab_build::{BuildError, BuildNeed};
use isolab_command::failure::of_image;
use isolab_registry::{AccessFault, RegistryError};

/// A hint for `error`, where it does not say so itself.
pub fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    // A transparent error stands for what it wraps, which is not in the chain then.
    match error.downcast_ref() {
        Some(BuildError::Image(error)) => of_image(error),
        Some(BuildError::Registry(error)) => of_registry(error),
        Some(BuildError::Step { missing: Some(BuildNeed::Secret(id)), .. }) => {
            Some(format!("--secret id={id},src=FILE gives it"))
        }
        Some(BuildError::Step { missing: Some(BuildNeed::HostNetwork), .. }) => {
            Some("--network host allows it".to_owned())
        }
        Some(_) => None,
        None => error.downcast_ref().and_then(of_registry),
    }
}

fn of_registry(error: &RegistryError) -> Option<String> {
    Some(match error {
        RegistryError::Image(error) => return of_image(error),
        RegistryError::Denied { registry, .. } => {
            format!("`isolab image login {registry}` takes a user and a password")
        }
        RegistryError::Failed { registry, cause: Some(AccessFault::UnknownCa), .. } => format!(
            "put the certificate of the CA that signed the registry's into \
             /etc/containers/certs.d/{registry}/ca.crt, or name its folder by --cert-dir"
        ),
        RegistryError::Failed { cause: Some(AccessFault::TlsOnLoopback), .. } => {
            "a registry that has no TLS is reached with --insecure".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use isolab_images::ImageError;

    use super::*;

    #[test]
    fn an_error_has_the_same_hint_wherever_it_came_through() {
        let missing = || ImageError::NotFound("web".to_owned());
        let pulled = || RegistryError::from(missing());
        let wanted = of_image(&missing());
        assert!(wanted.is_some());
        assert_eq!(hint(&pulled()), wanted);
        assert_eq!(hint(&BuildError::from(missing())), wanted);
        assert_eq!(hint(&BuildError::from(pulled())), wanted);
    }
}
