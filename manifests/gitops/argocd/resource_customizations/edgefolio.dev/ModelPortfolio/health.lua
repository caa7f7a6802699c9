-- Health of a ModelPortfolio, as kstatus sees it: observedGeneration, Stalled, Reconciling, Ready.
-- Beyond kstatus: Suspended where a person said so or is asked, Degraded where Git's wish was tried and undone.
local hs = { status = "Progressing", message = "Waiting for the operator" }

if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Being deleted"
  return hs
end
if obj.status == nil or obj.status.conditions == nil then
  return hs
end
if obj.status.observedGeneration ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  hs.message = "Waiting for the operator to see generation " .. tostring(obj.metadata.generation)
  return hs
end

local function condition(kind)
  for _, found in ipairs(obj.status.conditions) do
    if found.type == kind then
      return found
    end
  end
  return { status = "Unknown" }
end

local function text(found)
  if found.message ~= nil and found.message ~= "" then
    return found.message
  end
  return found.reason or ""
end

local ready = condition("Ready")
local reconciling = condition("Reconciling")
local stalled = condition("Stalled")
local degraded = condition("Degraded")
local serves = (obj.status.currentRevision or 0) > 0

if stalled.status == "True" then
  return { status = "Degraded", message = text(stalled) }
end
-- The user holds the first making (spec.job.suspend). A held remake is no news: the old revision serves.
if not serves and obj.status.job ~= nil and obj.status.job.outcome == "Suspended" then
  return { status = "Suspended", message = "The pruning run is suspended (spec.job.suspend)" }
end
-- spec.rollout.approval: Manual. A person must approve the revision.
if reconciling.status == "True" and reconciling.reason == "WaitingForApproval" then
  return { status = "Suspended", message = text(reconciling) }
end
if reconciling.status == "True" then
  return { status = "Progressing", message = text(reconciling) }
end
-- spec.rollout.onFailure: Pause. A person must say how to go on.
if degraded.status == "True" and degraded.reason == "RolloutPaused" then
  return { status = "Suspended", message = text(degraded) }
end
-- The new revision broke the objectives, the old one serves: not what Git asks for. It is tried again after hours.
if degraded.status == "True" and degraded.reason == "RolloutRolledBack" then
  return { status = "Degraded", message = text(degraded) }
end
if ready.status == "True" then
  return { status = "Healthy", message = text(ready) }
end
if ready.status == "False" and ready.reason == "EndpointsUnavailable" then
  return { status = "Degraded", message = text(ready) }
end
hs.message = text(ready)
return hs
