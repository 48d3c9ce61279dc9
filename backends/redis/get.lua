-- Reads rows by key. KEYS: the watermark, then containers: hashes, or one sorted set and its
-- hash of values. ARGV: generation, builder, 'h' or 'z', then for each hash a number of keys and
-- the keys.
-- Reply: 'ok', epoch, n, and for each hash a list of values; 'none'; 'moved', generation; 'lost',
-- why.
local have = redis.call('HMGET', KEYS[1], 'epoch', 'n', 'lost', 'gen', 'by')
if not have[1] then
  return {'none'}
end
if moved(have[4], have[5]) then
  return {'moved', have[4] or ''}
end
if have[3] then
  return {'lost', have[3]}
end

-- That a row is not there is believed only where no other row is missing.
local function incomplete(key, kind)
  return wrong(key, count(key, kind), redis.call('HGET', KEYS[1], rows(KEYS[1], key)))
end

local reply, entries = {'ok', have[1], have[2]}, ARGV[3] == 'z'
local i = 4
for k = entries and 3 or 2, #KEYS do
  local n = tonumber(ARGV[i])
  local values, missing = {}, false
  for from = i + 1, i + n, 1000 do
    local part = redis.pcall('HMGET', KEYS[k], unpack(ARGV, from, math.min(from + 999, i + n)))
    if part.err then
      return lose(part.err)
    end
    for j = 1, #part do
      values[#values + 1] = part[j]
      missing = missing or not part[j]
    end
  end
  if missing then
    local why = incomplete(KEYS[k], 'h')
    if not why and entries then
      why = incomplete(KEYS[2], 'z')
    end
    if why then
      return lose(why)
    end
    if entries then
      for j = 1, n do
        if not values[j] and redis.call('ZSCORE', KEYS[2], ARGV[i + j]) then
          values[j] = ''
        end
      end
    end
  end
  reply[#reply + 1] = values
  i = i + n + 1
end
return reply
