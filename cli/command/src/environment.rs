//! Variables of our own environment, for a workload.

/// `NAME=VALUE` as it is; `NAME` with our own value, if we have one, as podman has it.
pub fn with_our_values(variables: Vec<String>) -> Vec<String> {
    let value = |variable: String| match variable.contains('=') {
        true => Some(variable),
        false => std::env::var(&variable).ok().map(|value| format!("{variable}={value}")),
    };
    variables.into_iter().filter_map(value).collect()
}
