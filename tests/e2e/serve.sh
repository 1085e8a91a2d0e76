#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# sovereign serve as its operator sees it: what it prints, its flags, signals and refusals. The API has tests of its own.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

model=$TMPDIR/random.gguf
make_model "$model" || exit 1

pid=''
trap '[ -z "$pid" ] || kill -KILL "$pid"' EXIT

# start FLAGS...: a server on a free port; waits until it serves. Sets $pid, $url and $log, a file with its log so far.
start() {
    log=$TMPDIR/serve.log
    : >"$log"
    rm -f "$TMPDIR/lines"
    mkfifo "$TMPDIR/lines"
    "$SOVEREIGN" serve --port 0 "$@" </dev/null 2>"$TMPDIR/lines" >"$TMPDIR/serve.out" &
    pid=$!
    url=''
    exec 3<"$TMPDIR/lines"
    local line
    while IFS= read -r -t 60 -u 3 line; do
        printf '%s\n' "$line" >>"$log"
        [[ $line =~ serving\ .*\ on\ (http://[^ \"]*) ]] || continue
        url=${BASH_REMATCH[1]}
        break
    done
    # The text log has two lines more, with a command to try.
    if [[ $line != '{'* ]]; then
        IFS= read -r -t 60 -u 3 line && printf '%s\n' "$line" >>"$log"
        until [[ $line == *"'" ]] || ! IFS= read -r -t 60 -u 3 line; do printf '%s\n' "$line" >>"$log"; done
    fi
    cat <&3 >>"$log" &
    logger=$!
    exec 3<&-
    [ -n "$url" ]
}
# await: the server's end; leaves its exit status in $status, its log in $err.
await() {
    wait "$pid"
    status=$?
    wait "$logger"
    pid=''
    err=$(cat "$log")
    out=$(cat "$TMPDIR/serve.out")
}
stop() {
    kill -"${1:-TERM}" "$pid"
    await
}
get() { curl -sS --max-time 60 "$@"; }
code() { get -o /dev/null -w '%{http_code}' "$@"; }

first_run() {
    start && has "$(cat "$log")" 'built-in guide' && has "$(cat "$log")" '--model FILE.gguf'
}
step 'without --model the built-in guide is served, and says how to use another' first_run
budget() { grep -qE 'KV budget [0-9.]+ [kMG]?B of f16: 8 sequences x [0-9]+ tokens' "$log" || { cat "$log"; return 1; }; }
check 'the log says what the KV memory is for' budget
# The command that the server prints is run as it stands.
printed_command() {
    local command
    command=$(sed -n '/^  curl /,/}'"'"'$/p' "$log")
    has "$command" "$url/v1/chat/completions" && has "$(eval "$command" 2>&1)" '"content":"'
}
check 'the curl command in the log works' printed_command
# Chance and a conversation's past would only lead the guide astray.
steady() {
    local question='{"role":"user","content":"What is Sovereign?"}' first second
    first=$(get "$url/v1/chat/completions" -d "{\"messages\":[$question],\"seed\":1}")
    second=$(get "$url/v1/chat/completions" -d "{\"seed\":2,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"},
        {\"role\":\"assistant\",\"content\":\"Hello!\"},$question]}")
    has "$first" 'Sovereign is' && equal "${second#*choices}" "${first#*choices}"
}
check 'the guide answers the last message alone, and without chance' steady
check 'health' has "$(get "$url/health")" ok
check 'the page for people' has "$(get "$url/")" '<'
ends() { stop TERM && exits 0 && err_has 'stopped' && equal "$out" ''; }
step 'SIGTERM ends it well' ends

named() {
    start --model "$model" --model-name my-model --access-log && has "$(get "$url/v1/models")" '"my-model"'
}
step '--model-name is the id in the API' named
in_use() {
    local port=${url##*:}
    fails 1 "$port" "$SOVEREIGN" serve --port "$port" --model "$model" && err_has 'in use' && ! grep -q 'KV budget' <<<"$err"
}
check 'a port in use is said, before anything is loaded' in_use
accessed() { stop INT && exits 0 && err_has '/v1/models' && err_has '200'; }
step 'SIGINT ends it well; the access log has the request' accessed

# An answer in progress is finished before the server goes.
graceful() {
    start --model "$model" --ctx 4096 || return 1
    mkfifo "$TMPDIR/stream"
    get -N "$url/v1/completions" -d '{"prompt":"x","max_tokens":1500,"stream":true,"ignore_eos":true}' \
        >"$TMPDIR/stream" &
    local client=$! lines=0 line last=''
    exec 4<"$TMPDIR/stream"
    IFS= read -r -u 4 line
    kill -TERM "$pid"
    while IFS= read -r -u 4 line; do
        [ -z "$line" ] || { lines=$((lines + 1)); last=$line; }
    done
    exec 4<&-
    wait "$client"
    await
    exits 0 && equal "$last" 'data: [DONE]' && test "$lines" -gt 3
}
step 'an answer in progress is finished on SIGTERM' graceful
impatient() {
    start --model "$model" --ctx 1000000 --kv-memory 600M --parallel 1 || return 1
    rm -f "$TMPDIR/stream"
    mkfifo "$TMPDIR/stream"
    get -N "$url/v1/completions" -d '{"prompt":"x","max_tokens":900000,"stream":true,"ignore_eos":true}' \
        >"$TMPDIR/stream" 2>/dev/null &
    local client=$! line
    exec 4<"$TMPDIR/stream"
    IFS= read -r -u 4 line
    kill -TERM "$pid"
    # The first signal has been taken when the log says so.
    until grep -q stopping "$log"; do IFS= read -r -u 4 line || break; done
    kill -TERM "$pid"
    cat <&4 >/dev/null
    exec 4<&-
    wait "$client"
    await
    exits 130
}
step 'a second signal does not wait' impatient
no_grace() {
    start --model "$model" --ctx 1000000 --kv-memory 600M --parallel 1 --shutdown-grace 0 || return 1
    rm -f "$TMPDIR/stream"
    mkfifo "$TMPDIR/stream"
    get -N "$url/v1/completions" -d '{"prompt":"x","max_tokens":900000,"stream":true,"ignore_eos":true}' \
        >"$TMPDIR/stream" 2>/dev/null &
    local client=$! line
    exec 4<"$TMPDIR/stream"
    IFS= read -r -u 4 line
    kill -TERM "$pid"
    line=$(cat <&4)
    exec 4<&-
    wait "$client"
    await
    exits 0 && has "$line" '"error"'
}
step 'without grace a running answer ends with an error that says so' no_grace

printf '# keys\nfirst-key\n' >"$TMPDIR/keys"
keys() {
    start --model "$model" --api-key-file "$TMPDIR/keys" --log-format json &&
        equal "$(code "$url/v1/models")" 401 &&
        equal "$(code "$url/v1/models" -H 'Authorization: Bearer first-key')" 200
}
step 'API keys' keys
reload() {
    printf 'second-key\n' >"$TMPDIR/keys"
    kill -HUP "$pid"
    local tries=0
    until grep -q 'keys read again' "$log"; do
        tries=$((tries + 1))
        [ "$tries" -lt 1000 ] && get -o /dev/null "$url/health" || return 1
    done
    equal "$(code "$url/v1/models" -H 'Authorization: Bearer first-key')" 401 &&
        equal "$(code "$url/v1/models" -H 'Authorization: Bearer second-key')" 200
}
step 'SIGHUP reads the keys again' reload
json_log() {
    stop && exits 0 && equal "$(grep -vc '^{.*}$' "$log")" 0 && err_has '"level":"info"'
}
step 'a JSON log has one object per line' json_log
check 'a key file that is not there' fails 1 "$TMPDIR/nokeys" \
    "$SOVEREIGN" serve --port 0 --model "$model" --api-key-file "$TMPDIR/nokeys"
: >"$TMPDIR/empty-keys"
check 'a key file without keys' fails 1 "$TMPDIR/empty-keys" \
    "$SOVEREIGN" serve --port 0 --model "$model" --api-key-file "$TMPDIR/empty-keys"

exposed() {
    start --model "$model" --host 0.0.0.0 && grep -i 'key' "$log" | grep -qi warn
    local found=$?
    stop
    [ "$found" = 0 ] && exits 0
}
step 'exposed without a key, it says so' exposed
protected() {
    start --model "$model" --host 0.0.0.0 --api-key-file "$TMPDIR/keys" && ! grep -qi 'warn.*key' "$log"
    local found=$?
    stop
    [ "$found" = 0 ] && exits 0
}
step 'exposed with a key, it does not' protected
check 'an address that is not ours' fails 1 '203.0.113.1' \
    "$SOVEREIGN" serve --host 203.0.113.1 --port 0 --model "$model"
check 'a host that is no address' fails 1 'not-a-host.invalid' \
    "$SOVEREIGN" serve --host not-a-host.invalid --port 0 --model "$model"

# Of equal length, so that the file stays whole.
LC_ALL=C sed 's/<|im_start|>/<|xx_start|>/g' "$model" >"$TMPDIR/unknown.gguf"
unknown_template() {
    start --model "$TMPDIR/unknown.gguf" && has "$(cat "$log")" 'written as chatml'
    local found=$?
    stop
    [ "$found" = 0 ] && exits 0 && equal "$(grep -c 'chat template' <<<"$err")" 1
}
step 'a chat template that is not known is warned about once' unknown_template
known_template() {
    start --model "$TMPDIR/unknown.gguf" --chat-template llama3 && ! grep -q 'chat template' "$log"
    local found=$?
    stop
    [ "$found" = 0 ] && exits 0
}
step 'and not when it is given' known_template

data_dir() {
    start --model "$model" --data-dir "$TMPDIR/data/deep" || return 1
    stop
    exits 0 && equal "$(stat -c %a "$TMPDIR/data/deep")" 700
}
step '--data-dir is created, for its owner only' data_dir
: >"$TMPDIR/file"
check '--data-dir that is a file' fails 1 "--data-dir $TMPDIR/file" \
    "$SOVEREIGN" serve --port 0 --model "$model" --data-dir "$TMPDIR/file"
ask() { # ask: one answer that can be cached, without its id; its headers are in $TMPDIR/head
    get -D "$TMPDIR/head" -H 'Content-Type: application/json' "$url/v1/completions" \
        -d '{"prompt":"Once","max_tokens":8,"temperature":0,"ignore_eos":true}' | sed 's/^.*"choices"/"choices"/'
}
way() { sed -n 's/^x-sovereign-cache: \([a-z]*\).*/\1/p' "$TMPDIR/head"; }
kept_over_restart() {
    local first again
    start --model "$model" --data-dir "$TMPDIR/kept" || return 1
    first=$(ask)
    equal "$(way)" miss || return 1
    again=$(ask)
    equal "$(way)" hit && equal "$again" "$first" && has "$(cat "$TMPDIR/head")" 'Age: '
    local same=$?
    stop
    [ "$same" = 0 ] && exits 0 || return 1
    start --model "$model" --data-dir "$TMPDIR/kept" || return 1
    again=$(ask)
    equal "$(way)" hit && equal "$again" "$first" &&
        has "$(get "$url/metrics")" 'sovereign_sequences_total 0' &&
        fails 1 "in use by process $pid" "$SOVEREIGN" serve --port 0 --model "$model" --data-dir "$TMPDIR/kept"
    same=$?
    stop
    return $same
}
step 'answers are kept in --data-dir over a restart, for one server at a time' kept_over_restart
signed() {
    start --model "$model" --data-dir "$TMPDIR/signed" || return 1
    # Just after a start the model's digest may not be known: 429, try again.
    get --retry 20 -H 'Content-Type: application/json' "$url/v1/chat/completions" \
        -d '{"messages":[{"role":"user","content":"Once"}],"max_tokens":8,"seed":3,"receipt":true}' |
        sed 's/^.*"receipt":\(.*\)}\],"usage".*$/\1/' >"$TMPDIR/receipt.json"
    stop
    exits 0 && run "$SOVEREIGN" verify "$TMPDIR/receipt.json" --model "$model" --quiet
    exits 0 && out_has 'from its messages' && out_has 'verified'
}
step "a chat's receipt is verified by another process" signed
kept_after_kill() {
    start --model "$model" --data-dir "$TMPDIR/killed" || return 1
    ask >/dev/null
    equal "$(way)" miss || return 1
    local tries=0
    until has "$(get "$url/metrics")" 'sovereign_cache_store_written_total 1' >/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 3000 ] || return 1
    done
    stop KILL
    start --model "$model" --data-dir "$TMPDIR/killed" || return 1
    ask >/dev/null
    equal "$(way)" hit
    local found=$?
    stop
    [ "$found" = 0 ] && exits 0 || return 1
    make_model "$TMPDIR/other.gguf" --seed 2
    start --model "$TMPDIR/other.gguf" --data-dir "$TMPDIR/killed" || return 1
    ask >/dev/null
    equal "$(way)" miss
    found=$?
    stop
    return $found
}
step 'and after kill -9; those of another model are not given' kept_after_kill
without_cache() {
    start --model "$model" --cache off || return 1
    ask >/dev/null
    ask >/dev/null
    equal "$(way)" bypass && ! grep -q sovereign_cache_ <<<"$(get "$url/metrics")"
    local found=$?
    stop
    return $found
}
step '--cache off computes every time' without_cache
check 'an unknown cache policy' fails 2 '--cache-policy fifo: must be lru, sieve or s3fifo' \
    "$SOVEREIGN" serve --cache-policy fifo
check '--cache with another word' fails 2 '--cache maybe: must be on or off' "$SOVEREIGN" serve --cache maybe
damaged_secret() {
    mkdir -p "$TMPDIR/damaged" && echo x >"$TMPDIR/damaged/cache.secret" && chmod 600 "$TMPDIR/damaged/cache.secret"
    fails 1 cache.secret "$SOVEREIGN" serve --port 0 --model "$model" --data-dir "$TMPDIR/damaged"
}
step 'a damaged secret is an error that names it' damaged_secret
check 'a model that is none' fails 1 "$TMPDIR/file" "$SOVEREIGN" serve --port 0 --model "$TMPDIR/file"
check 'an unknown log level' fails 2 '--log-level loud: must be' "$SOVEREIGN" serve --log-level loud
quiet() {
    run timeout 60 "$SOVEREIGN" serve --port 0 --log-level error --model "$TMPDIR/file"
    exits 1 && equal "$(wc -l <<<"$err")" 1
}
check 'with --log-level error only the error is said' quiet
finish
