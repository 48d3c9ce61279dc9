-- Removes some keys of a generation that was replaced. KEYS: the partition's watermark, then
-- containers. ARGV: the generation as the watermark lists it ('-' is the first one), 'last' or ''.
-- Reply: 'ok'; 'gone' when it is not to be removed.
local old = redis.call('HGET', KEYS[1], 'old') or ''
local at = string.find(' ' .. old .. ' ', ' ' .. ARGV[1] .. ' ', 1, true)
if not at then
  return {'gone'}
end
redis.call('UNLINK', unpack(KEYS, 2))
if ARGV[2] == 'last' then
  local rest = {}
  for gen in string.gmatch(old, '%S+') do
    if gen ~= ARGV[1] then
      rest[#rest + 1] = gen
    end
  end
  if #rest == 0 then
    redis.call('HDEL', KEYS[1], 'old')
  else
    redis.call('HSET', KEYS[1], 'old', table.concat(rest, ' '))
  end
end
return {'ok'}
