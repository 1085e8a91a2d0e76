# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# http: a hit in the answer cache through HTTP, the built-in model's answer to one request. Requests per second over 64
# connections beside nginx, which answers any request with a constant of the same size; and the latency over one
# connection beside a GET of as many bytes from memcached. Servers have CPU 0 to themselves (two-cpus: the client is on
# CPU 1) or share it with the client (one-cpu). A peer that is not installed is left out.

HTTP_CONNECTIONS=64
HTTP_SECONDS=${HTTP_SECONDS:-3}
http_path=/v1/completions
http_request='{"prompt":"What is the answer cache, and when is an answer found in it?","max_tokens":64,"temperature":0,"ignore_eos":true}'
http_nginx=$(command -v nginx || { [ -x /usr/sbin/nginx ] && echo /usr/sbin/nginx; } || true)
http_memcached=$(command -v memcached || true)
[ -n "$http_nginx" ] || say "no nginx here: the rate of hits stands alone"
[ -n "$http_memcached" ] || say "no memcached here: the latency of hits stands alone"

# http_start ENGINE: on CPU 0. Sets server and port; body_bytes is what ours answers.
http_start() {
    port=$((20000 + (RANDOM * 7 + $$) % 12000))
    case $1 in
    sovereign)
        taskset -c 0 "$BUILD/sovereign" serve --model models/guide.gguf --port "$port" --threads 1 --parallel 1 --ctx 512 \
            >"$out/server-http.log" 2>&1 &
        server=$!
        server_ready http curl -fs "http://127.0.0.1:$port/health"
        curl -fs -o "$out/http-answer" -H 'Content-Type: application/json' -d "$http_request" \
            "http://127.0.0.1:$port$http_path"
        body_bytes=$(wc -c <"$out/http-answer")
        ;;
    nginx)
        # shellcheck disable=SC2016 # no variables
        {
            echo "daemon off; worker_processes 1; pid $PWD/$out/nginx.pid; error_log stderr crit;"
            echo 'events { worker_connections 1024; }'
            echo 'http { access_log off; keepalive_requests 1000000000; default_type application/json;'
            for part in client_body proxy fastcgi uwsgi scgi; do echo "${part}_temp_path $PWD/$out/nginx-temp;"; done
            echo "server { listen 127.0.0.1:$port; location / { return 200 '$(printf '%*s' "$body_bytes" '' | tr ' ' x)'; } } }"
        } >"$out/nginx.conf"
        taskset -c 0 "$http_nginx" -e stderr -c "$PWD/$out/nginx.conf" >"$out/server-http.log" 2>&1 &
        server=$!
        server_ready http curl -fs "http://127.0.0.1:$port/"
        ;;
    memcached)
        taskset -c 0 "$http_memcached" -u "$(id -un)" -l 127.0.0.1 -p "$port" -t 1 -U 0 >"$out/server-http.log" 2>&1 &
        server=$!
        server_ready http bash -c "echo >/dev/tcp/127.0.0.1/$port"
        ;;
    esac
}

# http_visit ENGINE CONNECTIONS CPU: the client's CPU.
http_visit() {
    local ask=(--post "$http_path" --body "$http_request")
    http_start "$1"
    case $1 in
    sovereign) ask+=(--expect 'x-sovereign-cache: hit') ;;
    memcached) ask=(--get answer --bytes "$body_bytes") ;;
    esac
    taskset -c "$3" "$out/bench_http" --port "$port" --connections "$2" --seconds "$HTTP_SECONDS" "${ask[@]}"
    server_stop
}

# http_compare METRICS PEER PROGRAM CONNECTIONS PLACEMENT CPU: ours and the peer, in turn.
http_compare() {
    local engine
    for engine in sovereign "$2"; do
        [ "$engine" = sovereign ] || [ -n "$3" ] || continue
        measure "http, $4 connections, $5, round $round of $rounds, $engine" http_visit "$engine" "$4" "$6"
        sed -i -E "/^($1) /!d" "$measured"
        keep http "$2" "$5" "$4" "${engine/$2/peer}"
    done
}

if [ "$(nproc)" -lt 2 ]; then
    say "http: one CPU only, nothing is measured"
else
    for round in $(seq "$rounds"); do
        http_compare 'hit_rate|client_cpu' nginx "$http_nginx" "$HTTP_CONNECTIONS" two-cpus 1
        http_compare 'hit_latency_p50|hit_latency_p99' memcached "$http_memcached" 1 one-cpu 0
        http_compare 'hit_latency_p50|hit_latency_p99' memcached "$http_memcached" 1 two-cpus 1
    done
fi
