-- wrk sends requests with the tokens of a file in turn, and writes its figures as JSON.
local requests, at = {}, 0

function init(args)
  for token in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", "/v1/contacts?limit=10", {
      ["Host"] = "api.example",
      ["Authorization"] = "Bearer " .. token,
      ["Accept"] = "application/json",
      ["User-Agent"] = "partner-client/4.2",
    })
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"microseconds":%d,"failed":%d,"p50":%d,"p99":%d,"p999":%d}\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
