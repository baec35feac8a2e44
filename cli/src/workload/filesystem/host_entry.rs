//! `--add-host`

use std::net::IpAddr;

use isolab_isolation::{HostEntry, parse_hostname};

/// `NAME[;NAME…]:ADDRESS`, an IPv6 address with or without brackets.
pub fn parse(text: &str) -> Result<HostEntry, String> {
    let Some((names, address)) = text.split_once(':') else {
        return Err("expected NAME:ADDRESS".to_owned());
    };
    if address == "host-gateway" {
        return Err("host-gateway is not supported: give the address".to_owned());
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: IpAddr =
        bare.unwrap_or(address).parse().map_err(|_| format!("`{address}` is no IP address"))?;
    let name = |name: &str| match name.is_empty() {
        true => Err("a name is missing".to_owned()),
        false => parse_hostname(name).map_err(|error| error.to_string()),
    };
    Ok(HostEntry { names: names.split(';').map(name).collect::<Result<_, _>>()?, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_addresses() {
        let entry = parse("db;data.example:10.0.0.9").unwrap();
        assert_eq!(entry.names, ["db", "data.example"]);
        assert_eq!(entry.address.to_string(), "10.0.0.9");
        for text in ["six:fd00::1", "six:[fd00::1]"] {
            assert_eq!(parse(text).unwrap().address.to_string(), "fd00::1");
        }
        for bad in ["", "a", "a:", "a:b", ":1.2.3.4", "a b:1.2.3.4", "a;:1.2.3.4", "a:host-gateway"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
