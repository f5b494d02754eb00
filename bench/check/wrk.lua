-- Sends requests that differ in their tokens alone, and prints what wrk saw as one line of JSON.
--
--   wrk -s wrk.lua URL -- TOKEN-PREFIX COUNT
local made, n = {}, 0

function init(args)
  local prefix, count = args[1], tonumber(args[2])
  for i = 0, count - 1 do
    made[i] = wrk.format("GET", nil, {
      ["Host"] = "api.example",
      ["Authorization"] = string.format("Bearer %s%07d", prefix, i),
      ["Accept"] = "application/json",
      ["Accept-Encoding"] = "gzip, deflate",
      ["User-Agent"] = "partner-client/4.2 (linux; amd64)",
    })
  end
end

function request()
  n = (n + 1) % (#made + 1)
  return made[n]
end

function done(summary, latency)
  local wrong = summary.errors
  io.write(string.format('{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "p999": %d, "wrong": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout))
end
