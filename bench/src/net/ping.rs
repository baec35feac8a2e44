//! What ping (iputils) prints with `-q`.

use crate::comparison::Figures;

/// Round trips: how many a second when each starts at the answer to the one before, and how long
/// one takes.
pub fn round_trips(output: &str) -> Result<Figures, String> {
    let fault = || format!("ping printed no summary that is understood: {output}");
    // 1000 packets transmitted, 1000 received, 0% packet loss, time 118ms
    let counts = output.lines().find(|line| line.contains("packets transmitted"));
    let received = counts.and_then(|line| line.split(", ").find(|part| part.contains("received")));
    let received = received.and_then(|part| part.split_whitespace().next());
    let received: f64 = received.and_then(|word| word.parse().ok()).ok_or_else(fault)?;
    if received == 0.0 {
        return Err("no ping was answered".to_owned());
    }
    // rtt min/avg/max/mdev = 0.080/0.110/0.400/0.020 ms, ipg/ewma 0.118/0.109 ms
    let times = output.lines().find_map(|line| line.strip_prefix("rtt "));
    let mean = times.and_then(|line| line.split_once("= ")?.1.split('/').nth(1)?.parse().ok());
    let milliseconds: f64 = mean.ok_or_else(fault)?;
    if milliseconds <= 0.0 {
        return Err(fault());
    }
    Ok(Figures {
        throughput: 1e3 / milliseconds,
        latency: Some(milliseconds * 1e3),
        work: received,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "PING 198.18.77.1 (198.18.77.1) 56(84) bytes of data.\n\n\
        --- 198.18.77.1 ping statistics ---\n\
        1000 packets transmitted, 998 received, 0.2% packet loss, time 118ms\n\
        rtt min/avg/max/mdev = 0.080/0.125/0.400/0.020 ms, ipg/ewma 0.118/0.109 ms\n";

    #[test]
    fn the_mean_is_taken() {
        let figures = round_trips(OUTPUT).unwrap();
        assert_eq!(figures, Figures { throughput: 8000.0, latency: Some(125.0), work: 998.0 });
    }

    #[test]
    fn failures_are_told() {
        let lost = OUTPUT.replace("998 received", "0 received");
        assert_eq!(round_trips(&lost).unwrap_err(), "no ping was answered");
        assert!(round_trips("ping: unknown host").unwrap_err().contains("unknown host"));
    }
}
