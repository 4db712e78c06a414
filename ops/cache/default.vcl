# Cache on disk for images and sets: `docker compose --profile cache up cache`.
vcl 4.1;

backend service {
    .host = "cpu";
    .port = "8000";
    # Above FIGMENT_TIMEOUT (30 s), so that the service reports the timeout. Raise both together.
    .first_byte_timeout = 60s;
    .between_bytes_timeout = 60s;
}

sub vcl_recv {
    # Only permanent addresses are kept. All else passes through byte by byte, so that a client that
    # reads slowly slows its stream down, instead of filling the memory.
    if (req.url !~ "^/(images|sets)/") {
        return (pipe);
    }
    # Varnish's own rules follow: GET and HEAD may be kept, and requests with Authorization pass.
}

sub vcl_miss {
    if (req.method == "HEAD") {
        return (pass);  # as a GET, it would compute the set
    }
}

sub vcl_backend_response {
    if (beresp.status != 200) {
        set beresp.uncacheable = true;
        set beresp.ttl = 0s;
    }
    set beresp.grace = 0s;
    # Varnish's own rules follow: Cache-Control decides, and what is private is not kept.
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    } else {
        set resp.http.X-Cache = "MISS";
    }
}

sub vcl_backend_error {
    set beresp.http.Content-Type = "application/problem+json";
    set beresp.http.Retry-After = "1";
    set beresp.body = """{"type": "about:blank", "title": "Service unavailable", "status": 503, "detail": "the cache cannot reach the service"}""";
    set beresp.status = 503;
    return (deliver);
}
