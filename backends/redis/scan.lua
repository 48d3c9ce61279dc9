-- Reads entries in order. KEYS: the watermark, a sorted set, its hash of values.
-- ARGV: generation, builder, least, greatest, most.
-- Reply: 'ok', epoch, n, keys, values (none at all when no entry has one); 'none'; 'moved',
-- generation; 'lost', why.
local have = redis.call('HMGET', KEYS[1], 'epoch', 'n', 'lost', rows(KEYS[1], KEYS[2]), rows(KEYS[1], KEYS[3]), 'gen', 'by')
if not have[1] then
  return {'none'}
end
if moved(have[6], have[7]) then
  return {'moved', have[6] or ''}
end
if have[3] then
  return {'lost', have[3]}
end
for k = 2, 3 do
  local why = wrong(KEYS[k], count(KEYS[k], k == 2 and 'z' or 'h'), have[k + 2])
  if why then
    return lose(why)
  end
end
local keys, values = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[3], ARGV[4], 'LIMIT', 0, ARGV[5]), {}
if tonumber(have[5] or 0) > 0 then
  for from = 1, #keys, 1000 do
    local part = redis.call('HMGET', KEYS[3], unpack(keys, from, math.min(from + 999, #keys)))
    for j = 1, #part do
      values[#values + 1] = part[j]
    end
  end
end
return {'ok', have[1], have[2], keys, values}
