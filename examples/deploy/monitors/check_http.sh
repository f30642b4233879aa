check_http --hostname=service-1 --port=8080 --url=/health --timeout=5 --expect='HTTP/1.1 200' \
    --regex='^\{"status":"warn"' --invert-regex --state-regex=warning
