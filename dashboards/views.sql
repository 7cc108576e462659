-- Views over s3search's tables, for SQLite and PostgreSQL.

drop view if exists s3search_ranking;
create view s3search_ranking as
select s.name as study, e.nfe, e.rung, e.extractor, e.value, e.standard_error, e.n_images,
       e.noise_seed,
       coalesce(p.origin, '') as origin, e.schedule_id
from s3search_evaluations e
join s3search_studies s on s.id = e.study_id
left join s3search_proposals p on p.study_id = e.study_id and p.schedule_id = e.schedule_id
where e.state = 'complete'
order by s.name, e.nfe, e.rung, e.value;

drop view if exists s3search_cost;
create view s3search_cost as
select s.name as study, e.rung, count(*) as evaluations, sum(e.network_calls) as network_calls,
       sum(e.seconds) as worker_seconds,
       sum(case when e.state = 'failed' then 1 else 0 end) as failed
from s3search_evaluations e
join s3search_studies s on s.id = e.study_id
group by s.name, e.rung;
