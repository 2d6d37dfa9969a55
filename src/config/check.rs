//! What settings must be to one another, beyond what each of them is.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{BusKind, Config, TokenSetting};

impl Config {
    /// Relations between sections; each message says what to write instead.
    pub(crate) fn check(&self) -> Result<()> {
        if self.bus.kind == BusKind::Kafka && self.kafka.brokers.trim().is_empty() {
            bail!("[bus] kind = \"kafka\" needs [kafka] brokers, for example brokers = \"localhost:9092\"");
        }
        if !(1..=1024).contains(&self.bus.partitions) {
            bail!("[bus] partitions is {}: write a number from 1 to 1024", self.bus.partitions);
        }
        if self.http.tls_cert.is_some() != self.http.tls_key.is_some() {
            bail!("[http] tls_cert and tls_key go together: write both, or neither");
        }
        let open = self.http.token_file.is_none() && self.http.token.is_empty();
        if !self.http.listen.ip().is_loopback() && (self.http.tls_cert.is_none() || open) {
            bail!(
                "[http] listen = \"{}\" can be reached from other machines: write tls_cert, tls_key and token_file \
                 (or [[http.token]]), or listen on 127.0.0.1",
                self.http.listen
            );
        }
        tokens(&self.http.token)?;
        if let Some(listen) = self.sql.listen.filter(|listen| !listen.ip().is_loopback())
            && (self.http.tls_cert.is_none() || self.sql.password_file.is_none())
        {
            bail!(
                "[sql] listen = \"{listen}\" can be reached from other machines: write [http] tls_cert and tls_key and \
                 [sql] password_file, or listen on 127.0.0.1"
            );
        }
        if self.log.commit_age.is_zero() || self.log.commit_age > Duration::from_secs(60) {
            bail!("[log] commit_age must be more than 0s and at most 60s");
        }
        if !((1 << 20)..=(512 << 20)).contains(&self.log.commit_bytes) {
            bail!(
                "[log] commit_bytes is {}: write a number from 1048576 (1 MiB) to 536870912 (512 MiB)",
                self.log.commit_bytes
            );
        }
        if self.recover.drain_within > Duration::from_secs(600) {
            bail!(
                "[recover] drain_within is {}: write at most 10m",
                humantime::format_duration(self.recover.drain_within)
            );
        }
        for (key, value) in [
            ("[probe] concurrency", self.probe.concurrency),
            ("[recover] concurrency", self.recover.concurrency),
            ("[recover] site_concurrency", self.recover.site_concurrency),
            ("[sql] max_rows", self.sql.max_rows),
            ("[sql] max_connections", self.sql.max_connections),
        ] {
            if value == 0 {
                bail!("{key} is 0: write 1 or more");
            }
        }
        if self.sql.memory < 32 << 20 {
            bail!("[sql] memory is {}: write 33554432 (32 MiB) or more", self.sql.memory);
        }
        Ok(())
    }
}

fn tokens(all: &[TokenSetting]) -> Result<()> {
    for (n, token) in all.iter().enumerate() {
        let TokenSetting { name, file, env, .. } = token;
        if name.trim().is_empty() || name.len() > 100 || name.contains(char::is_control) {
            bail!("[[http.token]] name = {name:?} is no name: write who shows the token, in one line");
        }
        if name == "token_file" {
            bail!(
                "[[http.token]] name = \"token_file\" is what the token in [http] token_file is called: choose another"
            );
        }
        if all[..n].iter().any(|other| other.name == *name) {
            bail!("[[http.token]] name = {name:?} is there twice, and events could not say who it was: choose another");
        }
        match (file, env) {
            (None, None) => {
                bail!("[[http.token]] {name}: write where the token is: file = \"FILE\" or env = \"VARIABLE\"")
            }
            (Some(_), Some(_)) => {
                bail!("[[http.token]] {name}: the token is in one place: write file or env, not both")
            }
            _ => {}
        }
    }
    Ok(())
}
