//! What ping (iputils) prints with `-q`.

use super::super::jobs::Figures;

/// With `-f`, ping gives an echo this many milliseconds before it sends another (ping(8): "or one
/// hundred times per second").
const TURN: f64 = 10.0;

/// Echoes under way on average, where each but a few waits for the one before.
const MOST_ON_AVERAGE: f64 = 1.5;

/// Has the guest's clock pass its first second. Until then CLOCK_MONOTONIC_RAW looks to ping as if
/// it had never read it, and `-f` sends without waiting for answers: up to iputils 20221126, Debian
/// 12's, at least (iputils' pull request 499).
pub const WAIT_FOR_CLOCK: &str = "sleep 1";

/// Round trips: how many a second when each starts at the answer to the one before, and how long
/// one takes.
///
/// # Errors
/// There was no answer, or echoes did not wait for each other, so that they measured a queue.
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
    let time = |place| times?.split_once("= ")?.1.split('/').nth(place)?.parse::<f64>().ok();
    let (milliseconds, longest) = time(1).zip(time(2)).ok_or_else(fault)?;
    if milliseconds <= 0.0 {
        return Err(fault());
    }
    // "pipe 12" behind the times: echoes under way at once, where there was more than one. Each
    // takes a turn of the longest round trip; one more may be sent where ping itself was held up.
    let pipe = times.and_then(|line| line.split_once(", pipe ")?.1.split(',').next());
    let under_way: f64 = pipe.map_or(Ok(1.0), str::parse).map_err(|_| fault())?;
    // The time between two echoes tells how many were under way on average. In guests with several vCPUs on one CPU there
    // were five at some time, ours and QEMU's, with answers in less than 30 ms each.
    let gap = times.and_then(|line| line.split_once(", ipg/ewma ")?.1.split('/').next());
    let on_average = gap.and_then(|gap| gap.parse::<f64>().ok()).map(|gap| milliseconds / gap);
    if under_way > 2.0 + longest / TURN && on_average.is_none_or(|echoes| echoes > MOST_ON_AVERAGE)
    {
        return Err(format!(
            "ping did not wait for answers: {under_way} echoes were under way, {longest} ms at most each"
        ));
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
    fn echoes_that_wait_for_no_answer_are_no_round_trips() {
        let between = |gap: &str, longest: &str, pipe: &str| {
            let output = OUTPUT.replace("0.400/0.020 ms", &format!("{longest}/0.020 ms{pipe}"));
            round_trips(&output.replace("0.118/", gap)).map(|figures| figures.throughput)
        };
        let with = |longest: &str, pipe: &str| between("0.010/", longest, pipe);
        // In the first second of a guest.
        let flood = with("0.771", ", pipe 12").unwrap_err();
        assert!(flood.contains("12 echoes"), "{flood}");
        // Five at some time, but about one on average.
        assert_eq!(between("0.120/", "0.771", ", pipe 5"), Ok(8000.0));
        // A host that stood still for a while, and a guest that did between two calls.
        for (longest, pipe) in [("112.000", ", pipe 12"), ("0.400", ", pipe 2")] {
            assert_eq!(with(longest, pipe), Ok(8000.0), "{longest} {pipe}");
        }
        assert!(with("0.400", ", pipe x").is_err());
    }

    #[test]
    fn failures_are_told() {
        let lost = OUTPUT.replace("998 received", "0 received");
        assert_eq!(round_trips(&lost).unwrap_err(), "no ping was answered");
        assert!(round_trips("ping: unknown host").unwrap_err().contains("unknown host"));
    }
}
