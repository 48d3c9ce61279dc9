-- Claims a partition and looks whether all of it is there. KEYS: the watermark, then every
-- container that can be. ARGV: generation, builder, epoch (20 digits, as all epochs), buckets, types
-- of the containers.
-- Reply: 'ok', generations that are to be removed; 'fenced', the later epoch; 'moved', generation;
-- 'lost', why (claimed all the same).
local have = redis.call('HMGET', KEYS[1], 'epoch', 'lost', 'buckets', 'gen', 'by', 'old')
if have[1] and have[1] > ARGV[3] then
  return {'fenced', have[1]}
end
if moved(have[4], have[5]) then
  return {'moved', have[4] or ''}
end
if not have[1] then
  -- One value of more than 64 bytes makes Redis keep this hash as a table, where a field is
  -- found without looking at all others.
  redis.call('HSET', KEYS[1], 'buckets', ARGV[4], 'about',
    'Watermark of a partition. Everything here is derived from the log: to have it rebuilt, delete all keys of the partition.')
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3])
local why = have[2]
if not why and (have[3] or ARGV[4]) ~= ARGV[4] then
  why = 'it was written with ' .. have[3] .. ' buckets'
end
if not why then
  for i = 2, #KEYS do
    local n = count(KEYS[i], string.sub(ARGV[5], i - 1, i - 1))
    why = wrong(KEYS[i], n, redis.call('HGET', KEYS[1], rows(KEYS[1], KEYS[i])))
    if why then
      break
    end
  end
end
if why then
  redis.call('HSET', KEYS[1], 'lost', why)
  return {'lost', why}
end
return {'ok', have[6] or ''}
