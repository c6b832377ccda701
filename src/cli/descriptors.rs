//! The limit on open files, which is a limit on connections.

use anyhow::{Context as _, bail};

/// Raises the soft limit as far as the hard one allows and makes sure that `needed` files can be open at once. `instead`
/// says what else the user can do.
pub(crate) fn ensure(needed: u64, what: &str, instead: &str) -> anyhow::Result<()> {
    let limit = rlimit::increase_nofile_limit(u64::MAX).context("cannot read the limit on open files")?;
    if limit < needed {
        bail!(
            "{what} needs about {needed} open files at once, but this process may have {limit}: raise the hard limit \
             (`ulimit -Hn {needed}` as root, or LimitNOFILE in a systemd unit), or {instead}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_low_a_limit_is_said() {
        ensure(3, "a test", "do less").unwrap();
        let error = ensure(u64::MAX, "the moon", "stay here").unwrap_err().to_string();
        assert!(error.starts_with("the moon needs about 18446744073709551615 open files"), "{error}");
        assert!(error.ends_with("or stay here"), "{error}");
    }
}
