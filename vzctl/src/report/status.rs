//! `vzctl status --json`.

use vzconf::Status;

/// The status as one JSON object on one line.
pub fn status_json(status: &Status) -> String {
    let suspended = status.exists && !status.running && status.suspended;
    let object = serde_json::json!({
        "ctid": status.ctid.get(),
        "exists": status.exists,
        "mounted": status.mounted,
        "running": status.running,
        "suspended": suspended,
        "status": status.word().as_str(),
    });
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vzconf::Ctid;

    #[test]
    fn tells_every_word_of_the_line() {
        let ctid = Ctid::new(101).unwrap();
        let status = Status { ctid, exists: true, mounted: true, running: true, suspended: true };
        assert_eq!(
            status_json(&status),
            "{\"ctid\":101,\"exists\":true,\"mounted\":true,\"running\":true,\"status\":\"running\",\"suspended\":false}\n"
        );
    }
}
